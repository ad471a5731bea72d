"""Large images, sent to a server with little memory: it decodes one at a time, and answers all."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from support.giants import GIANTS
from support.pictures import jpeg
from support.servers import Local, local_server, wait_for

from sar_infer.server.model import encoding
from sar_infer.server.settings import Limits, Settings

MIB = 2**20
IMAGE = {"Content-Type": "image/jpeg"}


class Decoding:
    """Holds large images until ``gate`` opens, and counts those being decoded, and the most so far."""

    def __init__(self, decode: Callable[..., Any]) -> None:
        self.gate = threading.Event()
        self.giants = self.most = self.small_beside = 0
        self._decode = decode
        self._lock = threading.Lock()

    def __call__(self, data: bytes, *rest: Any) -> Any:
        giant = data[:4] == b"RIFF"
        with self._lock:
            self.giants += giant
            self.most = max(self.most, self.giants)
            self.small_beside += not giant and self.giants > 0
        try:
            if giant:
                self.gate.wait(60)
            return self._decode(data, *rest)
        finally:
            with self._lock:
                self.giants -= giant


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoding]:
    held = Decoding(encoding.decode_image)
    monkeypatch.setattr(encoding, "decode_image", held)
    yield held
    held.gate.set()


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    settings = Settings(device="cpu", threads=1, decode_memory=160 * MIB, limits=Limits(queue=100, seconds=120))
    with local_server(settings) as local:
        yield local


def giant() -> bytes:
    """Return a WebP of 77 MiB when decoded, priced at 91: there is not enough memory for two."""
    return GIANTS["WebP lossless and alpha"]((2300, 2200))


def calls(url: str) -> list[Callable[[bytes], httpx2.Response]]:
    """Return a function for each way to send an image."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    def binary(data: bytes) -> httpx2.Response:
        content = len(data).to_bytes(4, "little") + data
        tensor = {"name": "IMAGE", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return httpx2.post(f"{url}/v2/models/sar-clip/infer", content=head + content, headers=headers, timeout=60)

    def post(path: str, **options: Any) -> httpx2.Response:
        return httpx2.post(url + path, timeout=60, **options)

    return [
        lambda data: post("/v1/classify", content=data, headers=IMAGE),
        lambda data: post("/v1/classify", files=[("image", data)] * 2),
        lambda data: post("/v1/classify", json={"images": [text(data)]}),
        lambda data: post("/v1/embeddings", json={"input": [text(data)], "modality": "image"}),
        lambda data: post(
            "/v1/zero-shot-image-classification", json={"inputs": text(data), "parameters": {"candidate_labels": ["a"]}}
        ),
        lambda data: post(
            "/v2/models/sar-clip/infer",
            json={"inputs": [{"name": "IMAGE", "shape": [1], "datatype": "BYTES", "data": [text(data)]}]},
        ),
        binary,
    ]


def test_giants_are_decoded_one_at_a_time_whichever_way_they_come_and_small_images_pass(
    server: Local, decoding: Decoding
) -> None:
    data, ways = giant(), calls(server.url)
    with ThreadPoolExecutor(len(ways)) as pool:
        sent = [pool.submit(way, data) for way in ways]
        wait_for(lambda: server.metric("sar_decode_memory_waiting") == len(ways) and decoding.giants)  # one sends two
        assert ways[0](jpeg()).status_code == 200
        assert decoding.small_beside
        decoding.gate.set()
        answers = [one.result() for one in sent]
    assert [answer.status_code for answer in answers] == [200] * len(ways), [answer.text for answer in answers]
    assert decoding.most == 1
    assert server.metric("sar_decode_memory_held_bytes") == server.metric("sar_decode_memory_waiting") == 0
    assert server.metric("sar_decode_memory_bytes") == 160 * MIB


def test_memory_is_taken_until_decoding_ends_though_its_request_was_told_504(decoding: Decoding) -> None:
    settings = Settings(device="cpu", threads=1, decode_memory=160 * MIB, limits=Limits(seconds=1))
    with local_server(settings) as local:
        answers = [
            httpx2.post(f"{local.url}/v1/classify", content=content, headers=IMAGE, timeout=60)
            for content in (giant(), giant(), jpeg())
        ]
        expected = [(504, None), (429, "1"), (200, None)]
        assert [(one.status_code, one.headers.get("retry-after")) for one in answers] == expected
        assert local.metric("sar_decode_memory_held_bytes") > 77 * MIB
        decoding.gate.set()
        wait_for(lambda: not local.metric("sar_decode_memory_held_bytes"))
    assert decoding.most == 1


def test_an_image_that_needs_more_than_there_is_is_refused(server: Local) -> None:
    answer = httpx2.post(
        f"{server.url}/v1/classify", content=GIANTS["WebP lossless"]((4000, 3000)), headers=IMAGE, timeout=60
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "image-too-large")
    assert "takes 183 MiB, more than the 140 MiB" in answer.json()["detail"]
