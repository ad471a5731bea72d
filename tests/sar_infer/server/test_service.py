"""Readiness, and reloads of the bundle under traffic."""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from click.testing import CliRunner
from support.bundles import BANK_NAMES, write_bundle
from support.pictures import jpeg
from support.servers import Compute, Local, around, local_server, serving, wait_for

from sar_infer import Classifier
from sar_infer.cli.bank import main as sar_bank
from sar_infer.server.model.banks import Banks
from sar_infer.server.model.process import Result, Task
from sar_infer.server.service import Service
from sar_infer.server.settings import Settings

IMAGE = {"Content-Type": "image/jpeg"}
KEY = {"Authorization": "Bearer k"}


@contextmanager
def with_bank(folder: Path, workers: int) -> Iterator[Local]:
    settings = Settings(
        bundle=write_bundle(folder / "bundle"),
        bank=folder / "mine.safetensors",
        key="k",
        device="cpu",
        threads=1,
        workers=workers,
    )
    with local_server(settings) as local:
        yield local


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with with_bank(tmp_path_factory.mktemp("one"), 0) as local:
        yield local


@pytest.fixture(scope="module")
def worker_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with with_bank(tmp_path_factory.mktemp("workers"), 2) as local:
        yield local


def restored(server: Local) -> Iterator[Local]:
    """Yield a server whose bundle and bank a test may change; afterwards they are as before."""
    yield server
    shutil.rmtree(bundle(server), ignore_errors=True)
    write_bundle(bundle(server))
    bank(server).unlink(missing_ok=True)
    assert reload(server).status_code == 200


@pytest.fixture
def server(one_process: Local) -> Iterator[Local]:
    yield from restored(one_process)


@pytest.fixture(params=["one_process", "worker_processes"])
def either(request: pytest.FixtureRequest) -> Iterator[Local]:
    yield from restored(request.getfixturevalue(request.param))


def bundle(server: Local) -> Path:
    return Path(str(server.service.settings.bundle))


def bank(server: Local) -> Path:
    return Path(str(server.service.settings.bank))


def reload(server: Local, timeout: float = 60) -> httpx2.Response:
    return httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=timeout)


def add(server: Local, name: str, **more: Any) -> httpx2.Response:
    return httpx2.put(f"{server.url}/v1/classes/{name}", **{"headers": KEY, "timeout": 60, **more})


def labels(url: str, **query: Any) -> set[str]:
    headers, params = {**IMAGE, **KEY}, {"top_k": 50, **query}
    answer = httpx2.post(f"{url}/v1/classify", content=jpeg(), params=params, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return {p["label"] for p in answer.json()["results"][0]["predictions"]}


def replace(server: Local, *names: str, encoder: str = "f") -> None:
    """Put a new bundle in the place of the old one, as a deployment does; it has another encoder's digest."""
    path = bundle(server)
    new = write_bundle(path.with_name("new"), names, encoder_digest=encoder * 64)
    shutil.rmtree(path)
    new.rename(path)


def test_a_reload_replaces_the_bundle_and_keeps_what_was_added(either: Local) -> None:
    assert add(either, "violet").status_code == 201
    done = either.metric("sar_reloads_total", outcome="done")
    replace(either, *BANK_NAMES, encoder="e")
    answer = reload(either)
    assert (answer.status_code, answer.json()["classes"]) == (200, 5)
    assert labels(either.url) == {*BANK_NAMES, "violet"}
    assert httpx2.get(f"{either.url}/readyz").status_code == 200
    assert either.metric("sar_reloads_total", outcome="done") == done + 1
    assert either.metric("sar_bank_classes", origin="added") == 1
    assert add(either, "teal").status_code == 201


@pytest.mark.parametrize("encoder", ["f", "e"], ids=["another encoder", "other classes"])
def test_a_bank_is_carried_to_another_bundle_before_it_is_served(server: Local, encoder: str) -> None:
    add(server, "violet")
    before = labels(server.url)
    replace(server, "green", "two", encoder=encoder)
    refused = reload(server)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad-bundle")
    assert "sar-bank carry" in refused.json()["detail"]
    assert labels(server.url) == before
    done = CliRunner().invoke(sar_bank, ["carry", str(bank(server)), "--bundle", str(bundle(server))])
    assert done.exit_code == 0, done.output
    assert labels(server.url) == before  # the old bundle still has the old bank
    assert reload(server).is_success
    assert add(server, "teal").status_code == 201
    assert labels(server.url) == {"green", "two", "violet", "teal"}


@contextmanager
def slow_reload(patch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Hold reloads while they open the bank; yield what says that one is there, and what lets them go on."""
    reached, gate = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Banks:
        reached.set()
        gate.wait(60)
        return Banks(*arguments, **options)

    patch.setattr("sar_infer.server.model.engine.Banks", slow)
    try:
        yield reached, gate
    finally:
        gate.set()


def test_a_reload_is_finished_if_its_client_gives_up(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client give up while the bank is carried over; the reload must not be left half done."""
    replace(server, "one", "two", encoder="e")
    with slow_reload(monkeypatch) as (reached, gate):
        with pytest.raises(httpx2.ReadTimeout):
            reload(server, timeout=1)
        assert reached.wait(60)
        gate.set()
    wait_for(lambda: labels(server.url) == {"one", "two"})
    assert add(server, "violet").status_code == 201
    assert labels(server.url) == {"one", "two", "violet"}


@pytest.mark.parametrize(("encoder", "photo"), [("e", b""), ("f", b""), ("e", jpeg()), ("f", jpeg())])
def test_a_change_that_waits_for_a_reload_is_made_with_the_new_bundle(
    server: Local, monkeypatch: pytest.MonkeyPatch, encoder: str, photo: bytes
) -> None:
    """Only photos that the encoder of before has embedded are to be sent again."""
    more = {"content": photo, "headers": {**KEY, **IMAGE}} if photo else {}
    replace(server, "one", "two", encoder=encoder)
    with monkeypatch.context() as patch, slow_reload(patch) as (reached, gate), ThreadPoolExecutor(2) as pool:
        swapped = pool.submit(reload, server)
        assert reached.wait(60)
        changed = pool.submit(add, server, "violet", **more)
        wait_for(lambda: server.service.changes.held)  # the photo has been embedded by then
        gate.set()
        assert swapped.result().status_code == 200
        answer = changed.result()
    assert server.service.engine.banks.bank.encoder_digest == encoder * 64
    if encoder == "f" and photo:
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
        assert "the bundle was replaced meanwhile" in answer.json()["detail"]
        assert "Retry-After" in answer.headers
        assert "violet" not in server.service.engine.banks.bank.names
        answer = add(server, "violet", **more)
    assert answer.status_code == 201, answer.text
    assert "violet" in server.service.engine.banks.bank.names


def test_changes_wait_their_turn_and_cancelled_ones_are_not_made(
    server: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()
    banks = server.service.engine.banks
    real, cancelled = banks._changed, server.metric("sar_rejected_total", reason="cancelled")

    def slow(*arguments: Any) -> Any:
        if not gate.is_set():
            begun.set()
            gate.wait(60)
        return real(*arguments)

    monkeypatch.setattr(banks, "_changed", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(add, server, "slow")
        assert begun.wait(60)
        with pytest.raises(httpx2.ReadTimeout):
            add(server, "given up", timeout=1)
        wait_for(lambda: server.metric("sar_rejected_total", reason="cancelled") == cancelled + 1)
        gate.set()
        assert first.result().status_code == 201
    assert add(server, "last").status_code == 201
    assert server.service.engine.banks.bank.names == ("red", "green", "blue", "grey thing", "slow", "last")


def test_changes_and_reloads_need_a_key(bundle_path: Path, tmp_path: Path) -> None:
    shutil.copy(bundle_path / "bank.safetensors", file := tmp_path / "mine.safetensors")
    with local_server(Settings(bundle=bundle_path, bank=file, device="cpu")) as server:
        for method, route in (("POST", "/v1/reload"), ("PUT", "/v1/classes/x"), ("DELETE", "/v1/classes/red")):
            answer = httpx2.request(method, server.url + route)
            assert (answer.status_code, answer.json()["code"]) == (403, "writes-disabled"), route
            assert "SAR_API_KEY" in answer.json()["detail"]
    with local_server(Settings(bundle=bundle_path, key="k", device="cpu")) as server:
        answer = add(server, "x")
        assert (answer.status_code, answer.json()["code"]) == (403, "writes-disabled")
        assert "--bank" in answer.json()["detail"]


def names(server: Local) -> list[str]:
    return [entry["name"] for entry in httpx2.get(f"{server.url}/v1/classes", headers=KEY).json()["classes"]]


def test_a_bad_bundle_is_refused_and_the_old_one_stays_and_encodes_new_names(server: Local) -> None:
    before, rows = labels(server.url), Classifier.open(bundle(server), device="cpu").embed_names(["a new name"])
    file, refusals = bundle(server) / "bank.safetensors", server.metric("sar_reloads_total", outcome="refused")
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    answer = reload(server)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-bundle")
    assert "bank.safetensors" in answer.json()["detail"]
    shutil.rmtree(bundle(server))
    assert reload(server).status_code == 422
    assert labels(server.url) == before
    body = {"input": ["a new name"]}
    answer = httpx2.post(f"{server.url}/v1/embeddings", json=body, headers=KEY, timeout=60)
    np.testing.assert_allclose([answer.json()["data"][0]["embedding"]], rows, atol=1e-6)
    assert server.metric("sar_reloads_total", outcome="refused") == refusals + 2


def test_requests_that_have_begun_end_with_the_bundle_they_began_with(
    either: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, gate, reached = either.service.engine, threading.Event(), threading.Event()

    def waiting(compute: Compute, tasks: Sequence[Task]) -> list[Result]:
        reached.set()
        gate.wait(60)
        return compute(tasks)

    around(either, monkeypatch, waiting)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(labels, either.url)
        assert reached.wait(30)
        replace(either, "one", "two")
        assert reload(either).status_code == 200
        assert labels(either.url) == {"one", "two"}
        gate.set()
        assert first.result() == {"red", "green", "blue", "grey thing"}
    assert labels(either.url, classes="teal", mode="only") == {"teal"}
    with pytest.raises(RuntimeError, match="shutdown"):
        asyncio.run(old.names.embed(["teal"]))


def test_readiness_runs_the_model(either: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.server.service._SELF_TEST_EVERY", 0.0)
    assert httpx2.get(f"{either.url}/readyz").json()["ready"]

    def scaled(factor: float) -> Callable[[Any, Any], list[Result]]:
        def call(compute: Any, tasks: Any) -> list[Result]:
            return [result._replace(row=result.row * np.float32(factor)) for result in compute(tasks)]

        return call

    for broken in (scaled(float("nan")), scaled(0.5), lambda compute, images: 1 / 0):
        with monkeypatch.context() as patch:
            around(either, patch, broken)  # type: ignore[arg-type]
            answer = httpx2.get(f"{either.url}/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert answer.json()["reason"]
        assert either.metric("sar_ready") == 0
        assert httpx2.get(f"{either.url}/healthz").status_code == 200
    assert httpx2.get(f"{either.url}/readyz").status_code == 200


def test_sighup_reloads_and_sigterm_drains(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle")
    with serving("--bundle", str(path), "--set", "notice=60", "--workers", "0") as server:
        shutil.rmtree(path)
        write_bundle(path, ("one", "two"))
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: httpx2.get(f"{server.url}/v1/model").json()["classes"] == 2)
        path.joinpath("manifest.json").unlink()
        server.process.send_signal(signal.SIGHUP)
        server.logged("reload refused")
        server.process.terminate()
        wait_for(lambda: httpx2.get(f"{server.url}/readyz").status_code == 503)
        assert httpx2.get(f"{server.url}/readyz").json()["reason"] == "shutting down"
        assert labels(server.url) == {"one", "two"}
        server.process.terminate()  # the second signal ends the drain
        assert server.process.wait(30) == 0
        assert server.log.read_text().endswith(" stopped\n")


def test_a_request_in_flight_is_answered_before_the_server_ends(bundle_path: Path) -> None:
    """Send the rest of a body after SIGTERM."""
    import socket

    image = jpeg()
    options = ("--bundle", str(bundle_path), "--set", "body-timeout=60", "--workers", "0")
    with serving(*options) as server, socket.create_connection(("127.0.0.1", server.port), 60) as talk:
        head = (
            f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}"
        )
        talk.sendall(head.encode() + b"\r\nExpect: 100-continue\r\n\r\n")
        answer = talk.makefile("rb")
        assert (answer.readline(), answer.readline()) == (b"HTTP/1.1 100 Continue\r\n", b"\r\n")  # it has begun
        talk.sendall(image[:50])
        server.process.terminate()
        server.logged("stopping: not ready any more")
        talk.sendall(image[50:])
        assert answer.readline().startswith(b"HTTP/1.1 200")
        assert server.process.wait(30) == 0
        assert server.log.read_text().endswith(" stopped\n")


def test_readiness_does_not_wait_in_the_queue(either: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    probing, answered = threading.Event(), threading.Event()

    def held(compute: Any, tasks: Any) -> list[Result]:
        """Let what runs already go on once readiness is calls, and what waits when that is answered."""
        (answered if probing.is_set() and not any(map(is_self_test, tasks)) else probing).wait(60)
        return compute(tasks)  # type: ignore[no-any-return]

    def is_self_test(task: Task) -> bool:
        return isinstance(task.image, np.ndarray)  # others are encoded

    line = either.service.engine.line
    monkeypatch.setattr("sar_infer.server.model.line.HANDED", 2)  # so that the queue lasts
    around(either, monkeypatch, held)
    with ThreadPoolExecutor(9) as threads:
        waiting = [threads.submit(labels, either.url) for _ in range(8)]
        try:
            wait_for(lambda: either.metric("sar_queue_depth") == 8)
            ready = threads.submit(httpx2.get, f"{either.url}/readyz", timeout=60)
            wait_for(lambda: any(is_self_test(item.task) for item in [*line._waiting]))
            probing.set()
            assert ready.result().status_code == 200
            assert either.metric("sar_queue_depth") > 0
        finally:
            probing.set()
            answered.set()
        for one in waiting:
            one.result()


def test_large_bodies_take_turns_and_let_others_in_between(bundle_path: Path) -> None:
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

    service = Service(Settings(bundle=bundle_path, device="cpu", threads=1))
    try:
        asyncio.run(all_at_once(service))
    finally:
        service.close()
    assert done == ["parsed", "small", "answered", "parsed", "parsed"]
