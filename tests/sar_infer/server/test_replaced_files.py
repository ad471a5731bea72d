"""Files that something else takes the place of, or that are damaged: at the start, while it serves, at a reload."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from support.bundles import write_bundle
from support.pictures import jpeg
from support.servers import Local, local_server

from sar_infer import Classifier
from sar_infer.bank import add
from sar_infer.errors import SarInferError
from sar_infer.server.service import Service
from sar_infer.server.settings import Settings

KEY = {"Authorization": "Bearer k"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bundle=write_bundle(tmp_path / "bundle"), bank=tmp_path / "b.safetensors", key="k", device="cpu", threads=1
    )


@pytest.fixture
def bank(settings: Settings) -> Path:
    assert settings.bank is not None
    return settings.bank


@pytest.fixture
def server(settings: Settings) -> Iterator[Local]:
    with local_server(settings) as local:
        yield local


def ask(server: Local, method: str, path: str, content: bytes | None = None) -> httpx2.Response:
    headers = KEY if content is None else {**KEY, "Content-Type": "image/jpeg"}
    return httpx2.request(method, f"{server.url}{path}", content=content, headers=headers, timeout=60)


def names(server: Local) -> set[str]:
    return {entry["name"] for entry in ask(server, "GET", "/v1/classes").json()["classes"]}


def refusal(settings: Settings) -> str:
    """Return why a server does not start."""
    with pytest.raises(SarInferError) as caught:
        Service(settings)
    return str(caught.value)


def remove(path: Path) -> None:
    path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("put", [getattr(os, "mkfifo", None), Path.mkdir], ids=["pipe", "folder"])
def test_what_is_no_bank_file_is_refused_in_one_line_and_the_old_classes_stay(
    server: Local, bank: Path, put: Callable[[Path], None]
) -> None:
    assert ask(server, "PUT", "/v1/classes/violet").status_code == 201
    before, sound = names(server), bank.read_bytes()
    bank.unlink()
    put(bank)
    assert ask(server, "PUT", "/v1/classes/mug").status_code == 409
    assert names(server) == before
    assert ask(server, "POST", "/v1/classify", jpeg()).status_code == 200
    assert server.metric("sar_bank_usable") == 0
    refused = ask(server, "POST", "/v1/reload")
    assert (refused.status_code, refused.json()["code"]) == (422, "bad-bundle")
    assert refused.json()["detail"].startswith(f"refused, the old bundle stays: {bank.name}: ")  # no path
    expected = f"{bank}: is {'a folder' if put is Path.mkdir else 'not a regular file'}"
    assert refusal(server.service.settings).startswith(expected)
    remove(bank)
    bank.write_bytes(sound)
    assert ask(server, "PUT", "/v1/classes/mug").status_code == 201
    assert names(server) == {*before, "mug"}
    assert server.metric("sar_bank_usable") == 1


def test_a_damaged_row_of_a_large_bank_is_seen_at_the_start_and_at_reload(tmp_path: Path) -> None:
    """More than 64 MiB are mapped and not read through when they are opened."""
    mini, bank, count = Classifier.open(device="cpu"), tmp_path / "large.safetensors", 34_000
    rows = np.random.default_rng(1).standard_normal((count, mini.bank.dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    add(mini.bank, [f"item {number}" for number in range(count)], rows, by="a test").save(bank)
    content = bytearray(bank.read_bytes())
    assert len(content) > 2**26
    with local_server(Settings(bank=bank, key="k", device="cpu", threads=1)) as server:
        at = content.index(rows[20_000].tobytes())
        content[at : at + 4] = np.float32(np.nan).tobytes()
        damaged = bank.with_name("damaged")
        damaged.write_bytes(content)
        damaged.replace(bank)
        refused = ask(server, "POST", "/v1/reload")
        assert (refused.status_code, refused.json()["code"]) == (422, "bad-bundle")
        assert refused.json()["detail"].startswith(f"refused, the old bundle stays: {bank.name}: ")  # no path
        assert ask(server, "GET", "/readyz").status_code == 200
    assert refusal(server.service.settings).startswith(f"{bank}: ")
