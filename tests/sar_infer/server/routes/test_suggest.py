"""Groups over HTTP: from images or embeddings, named, and classes then."""

from __future__ import annotations

import base64
import functools
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from support.servers import Local, local_server

from sar_infer.server.settings import Limits, Settings

CLOTHES = Path(__file__).parents[4] / "examples" / "clothes" / "test"
KINDS = ("shoes", "hat", "trousers")
PHOTOS = [path for kind in KINDS for path in sorted((CLOTHES / kind).glob("*.jpg"))[:8]]


@pytest.fixture(scope="module")
def bank_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Serve the shipped bundle with a key and a bank file."""
    bank = tmp_path_factory.mktemp("bank") / "shop.safetensors"
    with local_server(Settings(bank=bank, key="k", device="cpu", threads=1, limits=Limits(images=24))) as local:
        yield local


def encoded(paths: list[Path]) -> list[str]:
    return [base64.b64encode(path.read_bytes()).decode() for path in paths]


def suggested(client: httpx2.Client, **call: Any) -> dict[str, Any]:
    answer = client.post("/v1/suggest", json=call)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def problem(answer: httpx2.Response) -> tuple[int, str, str]:
    content = answer.json()
    return answer.status_code, content["code"], content["detail"]


def test_a_group_is_named_and_is_a_class(client: httpx2.Client) -> None:
    content = suggested(client, images=encoded(PHOTOS))
    assert (content["photos"], content["classes"], content["errors"]) == (24, 998, [])
    groups = content["groups"]
    assert sorted(number for group in groups for number in group["photos"]) == list(range(24))
    assert all(group["size"] == len(group["photos"]) for group in groups)
    kinds = [Counter(PHOTOS[number].parent.name for number in group["photos"]) for group in groups]
    assert {kind.most_common(1)[0][0] for kind in kinds} == set(KINDS)
    for number, (group, kind) in enumerate(zip(groups, kinds, strict=True)):
        files = [("image", (f"{n}.jpg", PHOTOS[n].read_bytes(), "image/jpeg")) for n in group["photos"]]
        name = urllib.parse.quote(f"our {kind.most_common(1)[0][0]}")
        assert client.put(f"/v1/classes/{name}", files=files).status_code in (200, 201), number
    assert client.get("/v1/classes/our%20shoes").json()["photos"] >= 4
    again = suggested(client, images=encoded(PHOTOS))
    assert again["classes"] == 1001
    assert again["bank"] != content["bank"]
    assert {group["like"] for group in again["groups"]} & {f"our {kind}" for kind in KINDS}


def test_images_forms_and_embeddings_give_the_same(client: httpx2.Client) -> None:
    images = encoded(PHOTOS)
    content = suggested(client, images=images)
    files = [("image", (path.name, path.read_bytes(), "image/jpeg")) for path in PHOTOS]
    form = client.post("/v1/suggest", files=files)
    call = {"input": images, "modality": "image", "encoding_format": "base64"}
    rows = [item["embedding"] for item in client.post("/v1/embeddings", json=call).json()["data"]]

    def gist(content: dict[str, Any]) -> list[list[int]]:
        return [sorted(group["photos"]) for group in content["groups"]]

    assert gist(form.json()) == gist(content) == gist(suggested(client, embeddings=rows))
    assert suggested(client, embeddings=rows * 5)["photos"] == 120  # more than images in a call


def test_an_image_that_cannot_be_read_is_in_no_group(client: httpx2.Client) -> None:
    images = encoded(PHOTOS[:6])
    images[2] = base64.b64encode(b"no image").decode()
    content = suggested(client, images=images)
    assert [(error["photo"], error["error_code"]) for error in content["errors"]] == [(2, "unsupported-format")]
    assert sorted(number for group in content["groups"] for number in group["photos"]) == [0, 1, 3, 4, 5]
    assert {label["photo"] for label in content["labels"]} == {0, 1, 3, 4, 5}
    only = suggested(client, images=[images[2]])
    assert (only["photos"], only["groups"], only["labels"]) == (0, [], [])


def test_calls_that_cannot_be_answered(client: httpx2.Client) -> None:
    row, short = (base64.b64encode(np.ones(size, "<f4").tobytes()).decode() for size in (512, 8))
    huge = base64.b64encode(np.full(512, 3e38, "<f4").tobytes()).decode()  # its square overflows, without a warning
    image = encoded(PHOTOS[:1])
    for call, code, detail in (
        ({}, "invalid-request", "expected either images or embeddings"),
        ({"images": image, "embeddings": [row]}, "invalid-request", "expected either images or embeddings"),
        ({"embeddings": [row]}, "invalid-request", "512 numbers each, of length 1, as this server makes"),
        ({"embeddings": [huge]}, "invalid-request", "512 numbers each, of length 1, as this server makes"),
        ({"embeddings": [short]}, "invalid-request", "512 numbers each, of length 1, as this server makes"),
        ({"embeddings": ["?"]}, "invalid-request", "expected little-endian float32 in base64"),
        ({"embeddings": ["AAA="]}, "invalid-request", "expected little-endian float32 in base64"),
        ({"embeddings": [row] * 1001}, "invalid-request", "at most 1000 items"),
        ({"images": []}, "invalid-request", "at least 1 item"),
        ({"photos": image}, "invalid-request", "unknown field"),
        ({"images": image * 25}, "too-many-images", "expected at most 24 images in a request, got 25"),
    ):
        status, said, text = problem(client.post("/v1/suggest", json=call))
        assert (said, detail in text) == (code, True), text
        assert status in (413, 422)
    assert problem(client.post("/v1/suggest", content=b"x"))[:2] == (415, "unsupported-media-type")
    assert problem(client.post("/v1/suggest", json={"images": image}, headers={"Authorization": "Bearer no"}))[0] == 401


def test_photos_are_grouped_one_call_at_a_time_also_if_clients_leave(
    client: httpx2.Client, bank_server: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, going_on, running = bank_server.service.engine.classifier, threading.Event(), list[int]()

    def slow(*call: object) -> dict[str, Any]:
        running.append(1)
        going_on.wait(30)
        return {}

    monkeypatch.setattr(classifier, "suggest", slow)
    call = {"embeddings": [base64.b64encode(np.eye(1, 512, dtype="<f4").tobytes()).decode()]}
    leave = functools.partial(client.post, "/v1/suggest", json=call, timeout=0.5)
    while not running:
        with pytest.raises(httpx2.ReadTimeout):
            leave()
    with pytest.raises(httpx2.ReadTimeout):
        leave()
    assert running == [1]
    going_on.set()
    suggested(client, **call)
    assert running == [1, 1]


def test_a_server_without_a_key_suggests_nothing(client: httpx2.Client, server: Local) -> None:
    answer = httpx2.post(f"{server.url}/v1/suggest", json={"images": encoded(PHOTOS[:1])})
    assert problem(answer)[:2] == (403, "writes-disabled")
    assert httpx2.get(f"{server.url}/v1/model").json()["suggests"] is False
    assert client.get("/v1/model").json()["suggests"] is True
