"""Readiness, and reloads of the bundle under traffic."""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from support.bundles import write_bundle
from support.pictures import jpeg
from support.servers import Local, local_server, serving

from sar_infer import Classifier
from sar_infer.server.bank.store import BankStore
from sar_infer.server.service import Service
from sar_infer.server.settings import Settings

IMAGE = {"Content-Type": "image/jpeg"}
KEY = {"Authorization": "Bearer k"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def server(path: Path, tmp_path: Path) -> Iterator[Local]:
    with local_server(Settings(bundle=path, state=tmp_path / "state", key="k", device="cpu", threads=1)) as local:
        yield local


def labels(url: str, **query: Any) -> set[str]:
    answer = httpx2.post(f"{url}/v1/classify", content=jpeg(), params={"top_k": 50, **query}, headers={**IMAGE, **KEY})
    assert answer.status_code == 200, answer.text
    return {p["label"] for p in answer.json()["results"][0]["predictions"]}


def replace(path: Path, *names: str) -> None:
    """Put a new bundle in the place of the old one, as a deployment does."""
    new = write_bundle(path.with_name("new"), names)
    shutil.rmtree(path)
    new.rename(path)


def test_a_reload_replaces_the_bundle_and_keeps_what_was_added(server: Local, path: Path) -> None:
    assert httpx2.put(f"{server.url}/v1/classes/violet", headers=KEY).status_code == 201
    replace(path, "one", "two")
    answer = httpx2.post(f"{server.url}/v1/reload", headers=KEY)
    assert answer.status_code == 200
    assert answer.json()["classes"] == 3
    assert labels(server.url) == {"one", "two", "violet"}
    assert httpx2.get(f"{server.url}/readyz").status_code == 200
    assert server.metric("sar_reloads_total", outcome="done") == 1
    assert server.metric("sar_bank_classes", origin="added") == 1


def test_a_bad_bundle_is_refused_and_the_old_one_stays(server: Local, path: Path) -> None:
    before = labels(server.url)
    bank = path / "bank.safetensors"
    bank.write_bytes(bank.read_bytes()[:-1] + b"\0")
    answer = httpx2.post(f"{server.url}/v1/reload", headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-bundle")
    assert "bank.safetensors" in answer.json()["detail"]
    shutil.rmtree(path)
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY).status_code == 422
    assert labels(server.url) == before
    assert labels(server.url, classes="teal", mode="only") == {"teal"}  # names are encoded without the folder
    assert server.metric("sar_reloads_total", outcome="refused") == 2


def test_requests_that_have_begun_end_with_the_bundle_they_began_with(
    server: Local, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, gate, reached = server.service.engine, threading.Event(), threading.Event()
    encode = old._batcher._encode

    def waiting(pixels: Any) -> Any:
        reached.set()
        gate.wait(10)
        return encode(pixels)

    monkeypatch.setattr(old._batcher, "_encode", waiting)
    found: list[set[str]] = []
    thread = threading.Thread(target=lambda: found.append(labels(server.url)))
    thread.start()
    assert reached.wait(5)
    replace(path, "one", "two")
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=20).status_code == 200
    assert labels(server.url) == {"one", "two"}
    gate.set()
    thread.join(10)
    assert found == [{"red", "green", "blue", "grey thing"}]
    assert labels(server.url, classes="teal", mode="only") == {"teal"}
    with pytest.raises(RuntimeError, match="shutdown"):
        asyncio.run(old.names.embed(["teal"]))


def test_changes_and_reloads_need_a_key(path: Path, tmp_path: Path) -> None:
    with local_server(Settings(bundle=path, state=tmp_path / "state", device="cpu")) as server:
        for method, route in (("POST", "/v1/reload"), ("PUT", "/v1/classes/x"), ("DELETE", "/v1/classes/red")):
            answer = httpx2.request(method, server.url + route)
            assert (answer.status_code, answer.json()["code"]) == (403, "writes-disabled"), route
            assert "SAR_API_KEY" in answer.json()["detail"]
    with local_server(Settings(bundle=path, key="k", device="cpu")) as server:
        answer = httpx2.put(f"{server.url}/v1/classes/x", headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (403, "writes-disabled")
        assert "--state" in answer.json()["detail"]


def test_readiness_runs_the_model(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.server.service._SELF_TEST_EVERY", 0.0)
    assert httpx2.get(f"{server.url}/readyz").json()["ready"]
    batcher = server.service.engine._batcher
    healthy = batcher._encode
    broken: list[Any] = [
        lambda pixels: healthy(pixels) * np.float32("nan"),
        lambda pixels: healthy(pixels) * np.float32(0.5),
        lambda pixels: healthy(pixels) * np.float32(2),
        lambda pixels: 1 / 0,
    ]
    for encode in broken:
        batcher._encode = encode
        answer = httpx2.get(f"{server.url}/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert answer.json()["reason"]
        assert server.metric("sar_ready") == 0
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
    batcher._encode = healthy
    assert httpx2.get(f"{server.url}/readyz").status_code == 200


def test_readiness_is_asked_of_the_model_at_most_every_two_seconds(server: Local) -> None:
    batcher, asked = server.service.engine._batcher, []
    encode = batcher._encode
    batcher._encode = lambda pixels: asked.append(1) or encode(pixels)  # type: ignore[func-returns-value]
    for _ in range(20):
        assert httpx2.get(f"{server.url}/readyz").status_code == 200
    assert len(asked) == 1


def test_sighup_reloads_and_sigterm_drains(path: Path) -> None:
    with serving("--bundle", str(path), "--notice", "0.5") as server:
        replace(path, "one", "two")
        server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while httpx2.get(f"{server.url}/v1/model").json()["classes"] != 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        path.joinpath("manifest.json").unlink()
        server.process.send_signal(signal.SIGHUP)
        server.logged("reload refused")
        server.process.terminate()
        while (answer := httpx2.get(f"{server.url}/readyz")).status_code == 200:
            assert time.monotonic() < end
        assert answer.json()["reason"] == "shutting down"
        assert labels(server.url) == {"one", "two"}
        assert server.process.wait(10) == 0


def test_a_request_in_flight_is_answered_before_the_server_ends(path: Path) -> None:
    """Send the rest of a body after SIGTERM."""
    import socket

    image = jpeg()
    with serving("--bundle", str(path)) as server, socket.create_connection(("127.0.0.1", server.port)) as talk:
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}"
        talk.sendall(head.encode() + b"\r\n\r\n" + image[:50])
        time.sleep(0.2)
        server.process.terminate()
        time.sleep(0.3)
        talk.sendall(image[50:])
        assert talk.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        assert server.process.wait(10) == 0


def test_the_classifier_answers_alike(server: Local, path: Path) -> None:
    (result,) = Classifier.open(path, "cpu").classify(jpeg(), top_k=50)
    assert {p.label for p in result.predictions} == labels(server.url)


def test_a_reload_is_finished_if_its_client_gives_up(
    server: Local, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the client give up while the bank is carried over; the reload must not be left half done."""
    reached, gate = threading.Event(), threading.Event()
    rebased = BankStore.rebased

    def slow(self: BankStore, *arguments: Any) -> BankStore:
        reached.set()
        gate.wait(10)
        return rebased(self, *arguments)

    monkeypatch.setattr(BankStore, "rebased", slow)
    replace(path, "one", "two")
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=1)
    assert reached.wait(5)
    gate.set()
    end = time.monotonic() + 10
    while labels(server.url) != {"one", "two"}:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert httpx2.put(f"{server.url}/v1/classes/violet", headers=KEY).status_code == 201
    assert labels(server.url) == {"one", "two", "violet"}


def test_readiness_does_not_wait_in_the_queue(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = server.service.engine._batcher
    encode = batcher._encode
    monkeypatch.setattr(batcher, "_max_batch", 2)  # so that the queue lasts
    monkeypatch.setattr(batcher, "_encode", lambda pixels: (time.sleep(0.2), encode(pixels))[1])
    waiting = [threading.Thread(target=labels, args=(server.url,)) for _ in range(20)]
    for thread in waiting:
        thread.start()
    while server.metric("sar_queue_depth") < 15:
        time.sleep(0.01)
    start = time.monotonic()
    assert httpx2.get(f"{server.url}/readyz").status_code == 200
    assert time.monotonic() - start < 1.2
    assert server.metric("sar_queue_depth") > 0
    for thread in waiting:
        thread.join(20)


def test_changes_wait_their_turn_and_cancelled_ones_are_not_made(server: Local) -> None:
    loop_free = threading.Event()

    def hold() -> None:
        with httpx2.Client(base_url=server.url, headers=KEY) as client:
            client.put("/v1/classes/slow")

    put = server.service.store.put

    def slow(name: str, *arguments: Any) -> Any:
        if name == "slow":
            loop_free.wait(5)
        return put(name, *arguments)

    server.service.store.put = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=hold)
    thread.start()
    while not server.service.writing.locked():
        time.sleep(0.01)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.put(f"{server.url}/v1/classes/given up", headers=KEY, timeout=0.3)
    time.sleep(0.1)
    loop_free.set()
    thread.join(10)
    assert httpx2.put(f"{server.url}/v1/classes/last", headers=KEY).status_code == 201
    assert labels(server.url) == {"red", "green", "blue", "grey thing", "slow", "last"}


def test_large_bodies_take_turns_and_let_others_in_between(path: Path) -> None:
    done: list[str] = []

    def parse() -> None:
        time.sleep(0.02)
        done.append("parsed")

    async def other() -> None:
        for _ in range(6):
            await asyncio.sleep(0)
        done.append("answered")

    async def all_at_once(service: Service) -> None:
        large = [service.in_turn(10 * 2**20, parse) for _ in range(3)]
        await asyncio.gather(*large, other(), service.in_turn(100, lambda: done.append("small")))

    service = Service.open(Settings(bundle=path, device="cpu", threads=1))
    try:
        asyncio.run(all_at_once(service))
    finally:
        service.close()
    assert done == ["parsed", "small", "answered", "parsed", "parsed"]
