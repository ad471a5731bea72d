"""Changes of the bank that wait: for one another, or for a reload."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.bundles import write_bundle
from support.pictures import jpeg
from support.servers import Local, local_server, wait_for

from sar_infer.server.bank.store import BankStore
from sar_infer.server.settings import Settings

IMAGE = {"Content-Type": "image/jpeg"}
KEY = {"Authorization": "Bearer k"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def server(path: Path, tmp_path: Path) -> Iterator[Local]:
    file = tmp_path / "mine.safetensors"
    with local_server(Settings(bundle=path, bank=file, key="k", device="cpu", threads=1)) as local:
        yield local


def put(server: Local, name: str, photo: bytes = b"", seconds: float = 60) -> httpx2.Response:
    headers = {**KEY, **(IMAGE if photo else {})}
    return httpx2.put(f"{server.url}/v1/classes/{name}", content=photo, headers=headers, timeout=seconds)


def test_changes_wait_their_turn_and_cancelled_ones_are_not_made(server: Local) -> None:
    begun, gate = threading.Event(), threading.Event()
    real = server.service.store.put

    def slow(name: str, *arguments: Any) -> Any:
        if name == "slow":
            begun.set()
            gate.wait(60)
        return real(name, *arguments)

    server.service.store.put = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(put, server, "slow")
        assert begun.wait(60)
        with pytest.raises(httpx2.ReadTimeout):
            put(server, "given up", seconds=1)
        wait_for(lambda: server.metric("sar_rejected_total", reason="cancelled") == 1)
        gate.set()
        assert first.result().status_code == 201
    assert put(server, "last").status_code == 201
    assert server.service.store.bank.names == ("red", "green", "blue", "grey thing", "slow", "last")


@pytest.mark.parametrize(("encoder", "photo"), [("e", b""), ("f", b""), ("e", jpeg())])
def test_a_change_that_waits_for_a_reload_is_made_with_the_new_bundle(
    server: Local, path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, photo: bytes
) -> None:
    changed = put_during_reload(server, path, monkeypatch, encoder, photo)
    assert changed.status_code == 201, changed.text
    assert "violet" in server.service.store.bank.names
    assert server.service.store.bank.encoder_digest == encoder * 64


def test_photos_of_an_encoder_that_was_replaced_are_to_be_sent_again(
    server: Local, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = put_during_reload(server, path, monkeypatch, "f", jpeg())
    assert (changed.status_code, changed.json()["code"]) == (429, "overloaded")
    assert "the bundle was replaced while photos were read" in changed.json()["detail"]
    assert "Retry-After" in changed.headers
    assert "violet" not in server.service.store.bank.names
    assert put(server, "violet", jpeg()).status_code == 201


def put_during_reload(
    server: Local, path: Path, patch: pytest.MonkeyPatch, encoder: str, photo: bytes
) -> httpx2.Response:
    """Add a class, by its name or a photo, while a reload opens a bundle, and return the answer."""
    reached, gate, real = threading.Event(), threading.Event(), BankStore.open

    def slow(*arguments: Any, **options: Any) -> BankStore:
        reached.set()
        gate.wait(60)
        return real(*arguments, **options)

    shutil.rmtree(path)
    write_bundle(path, encoder_digest=encoder * 64)
    with ThreadPoolExecutor(2) as pool, patch.context() as slowed:
        slowed.setattr(BankStore, "open", slow)
        reload = pool.submit(httpx2.post, f"{server.url}/v1/reload", headers=KEY, timeout=60)
        assert reached.wait(60)
        changed = pool.submit(put, server, "violet", photo)
        wait_for(lambda: server.service.admission.changes.held)  # the photo has been embedded by then
        gate.set()
        assert reload.result().status_code == 200
        return changed.result()
