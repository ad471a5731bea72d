"""Readiness, and reloads of the bundle under traffic."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from click.testing import CliRunner
from support.bundles import write_bundle
from support.pictures import jpeg
from support.servers import Local, around, local_server, serving, wait_for

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.cli.bank import main as sar_bank
from sar_infer.server.bank.store import BankStore
from sar_infer.server.model.encoding import Result, Task
from sar_infer.server.problems import CODES
from sar_infer.server.service import Service
from sar_infer.server.settings import Settings

IMAGE = {"Content-Type": "image/jpeg"}
KEY = {"Authorization": "Bearer k"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def settings(path: Path, tmp_path: Path) -> Settings:
    return Settings(bundle=path, bank=tmp_path / "mine.safetensors", key="k", device="cpu", threads=1)


@pytest.fixture
def server(settings: Settings) -> Iterator[Local]:
    with local_server(settings) as local:
        yield local


@pytest.fixture(params=[0, 2], ids=["one process", "worker processes"])
def either(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Local]:
    with local_server(dataclasses.replace(settings, workers=request.param)) as local:
        yield local


def test_metrics_say_that_the_bank_file_cannot_be_used(server: Local, settings: Settings) -> None:
    httpx2.put(f"{server.url}/v1/classes/mug", headers=KEY)
    assert settings.bank is not None
    sound = settings.bank.read_bytes()
    assert server.metric("sar_bank_usable") == 1
    settings.bank.write_bytes(sound[:100])
    assert httpx2.put(f"{server.url}/v1/classes/cup", headers=KEY).status_code == 409
    assert server.metric("sar_bank_usable") == 0
    settings.bank.write_bytes(sound)
    assert httpx2.put(f"{server.url}/v1/classes/cup", headers=KEY).status_code == 201
    assert server.metric("sar_bank_usable") == 1


def test_refusals_are_counted_from_zero(server: Local) -> None:
    rejected = server.service.metrics.registry.get_sample_value
    assert {rejected("sar_rejected_total", {"reason": code}) for code in (*CODES, "cancelled")} == {0}


def labels(url: str, **query: Any) -> set[str]:
    headers, params = {**IMAGE, **KEY}, {"top_k": 50, **query}
    answer = httpx2.post(f"{url}/v1/classify", content=jpeg(), params=params, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return {p["label"] for p in answer.json()["results"][0]["predictions"]}


def replace(path: Path, *names: str, encoder: str = "f") -> None:
    """Put a new bundle in the place of the old one, as a deployment does; it has another encoder's digest."""
    new = write_bundle(path.with_name("new"), names, encoder_digest=encoder * 64)
    shutil.rmtree(path)
    new.rename(path)


def test_a_reload_replaces_the_bundle_and_keeps_what_was_added(either: Local, path: Path) -> None:
    assert httpx2.put(f"{either.url}/v1/classes/violet", headers=KEY).status_code == 201
    replace(path, "one", "two")
    answer = httpx2.post(f"{either.url}/v1/reload", headers=KEY, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["classes"] == 3
    assert labels(either.url) == {"one", "two", "violet"}
    assert httpx2.get(f"{either.url}/readyz").status_code == 200
    assert either.metric("sar_reloads_total", outcome="done") == 1
    assert either.metric("sar_bank_classes", origin="added") == 1


def test_another_encoder_and_back_while_it_serves(server: Local, path: Path) -> None:
    httpx2.put(f"{server.url}/v1/classes/violet", headers=KEY, json={"phrases": ["lilac", "mauve"]})
    photo = {"images": [base64.b64encode(jpeg()).decode()]}
    assert httpx2.post(f"{server.url}/v1/classes/violet/images", headers=KEY, json=photo, timeout=60).is_success
    seen = httpx2.delete(f"{server.url}/v1/classes/green", headers=KEY).headers["etag"]
    replace(path, "green", "two")
    told = httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).json()
    assert (told["classes"], told["photos_missing"]) == (2, ["violet"])
    assert labels(server.url) == {"two", "violet"}
    assert httpx2.get(f"{server.url}/v1/classes/violet", headers=KEY).json()["phrases"] == ["lilac", "mauve"]
    told = httpx2.put(f"{server.url}/v1/classes/teal", headers=KEY)
    assert (told.status_code, told.json()["code"]) == (409, "conflict")
    assert "sar-bank rebase" in told.json()["detail"]
    replace(path, "red", "green", "blue", "grey thing", encoder="e")
    back = httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).json()
    assert (back["classes"], back["photos_missing"]) == (4, [])
    assert labels(server.url) == {"red", "blue", "grey thing", "violet"}
    assert httpx2.get(f"{server.url}/v1/classes", headers=KEY).headers["etag"] == seen
    assert httpx2.put(f"{server.url}/v1/classes/teal", headers=KEY).status_code == 201


def test_a_bank_is_changed_again_after_a_rebase(server: Local, path: Path, tmp_path: Path) -> None:
    httpx2.put(f"{server.url}/v1/classes/violet", headers=KEY)
    replace(path, "green", "two")
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).is_success
    done = CliRunner().invoke(sar_bank, ["rebase", str(tmp_path / "mine.safetensors"), "--bundle", str(path)])
    assert done.exit_code == 0, done.output
    assert httpx2.put(f"{server.url}/v1/classes/teal", headers=KEY).status_code == 201
    assert labels(server.url) == {"green", "two", "violet", "teal"}


def test_reloads_that_come_together_are_one_more(server: Local, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, gate, asked = threading.Event(), threading.Event(), []
    open_store, reload = BankStore.open, server.service.reload

    def slow(*arguments: Any, **options: Any) -> BankStore:
        reached.set()
        gate.wait(60)
        return open_store(*arguments, **options)

    async def noted() -> list[str]:
        asked.append(1)
        return await reload()

    monkeypatch.setattr(BankStore, "open", slow)
    monkeypatch.setattr(server.service, "reload", noted)
    with ThreadPoolExecutor(10) as pool:
        try:
            first = pool.submit(httpx2.post, f"{server.url}/v1/reload", headers=KEY, timeout=60)
            assert reached.wait(60)
            replace(path, "one", "two")
            more = [pool.submit(httpx2.post, f"{server.url}/v1/reload", headers=KEY, timeout=60) for _ in range(9)]
            wait_for(lambda: len(asked) == 10)
        finally:
            gate.set()
        answers = [one.result() for one in (first, *more)]
    assert {answer.status_code for answer in answers} == {200}
    assert server.metric("sar_reloads_total", outcome="done") == 2
    assert labels(server.url) == {"one", "two"}
    httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60)
    assert server.metric("sar_reloads_total", outcome="done") == 3


def test_a_reload_takes_bundle_and_bank_as_a_pair(server: Local, path: Path, tmp_path: Path) -> None:
    """Damage the bank file, so that a good bundle is refused with it and nothing has changed."""
    httpx2.put(f"{server.url}/v1/classes/violet", headers=KEY)
    file, before = tmp_path / "mine.safetensors", labels(server.url)
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    replace(path, "one", "two")
    answer = httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-bundle")
    assert "mine.safetensors" in answer.json()["detail"]
    assert labels(server.url) == before
    file.write_bytes(content)
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 200
    assert labels(server.url) == {"one", "two", "violet"}


def test_a_bundle_of_the_same_encoder_takes_the_changes_without_asking(server: Local, path: Path) -> None:
    httpx2.put(f"{server.url}/v1/classes/violet", headers=KEY)
    replace(path, "one", "two", encoder="e")
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 200
    assert labels(server.url) == {"one", "two", "violet"}
    assert httpx2.put(f"{server.url}/v1/classes/teal", headers=KEY).status_code == 201


def test_what_sar_bank_writes_is_served_soon(path: Path, tmp_path: Path) -> None:
    """Serve without a key, from a file that does not exist at first."""
    file = tmp_path / "mine.safetensors"
    with serving("--bundle", str(path), "--bank", str(file)) as server:
        end = time.monotonic() + 30
        for arguments in (["add", str(file), "violet"], ["rollback", str(file), "--to", "0"]):
            done = CliRunner().invoke(sar_bank, [*arguments, "--bundle", str(path)])
            assert done.exit_code == 0, done.output
            expected = list(ClassBank.load(file).names)
            while [e["name"] for e in httpx2.get(f"{server.url}/v1/classes").json()["classes"]] != expected:
                assert time.monotonic() < end
        assert len(httpx2.get(f"{server.url}/v1/bank/history").json()["steps"]) == 2
        assert "only sar-bank can change the classes" in server.log.read_text()


def test_new_names_are_encoded_by_the_bundle_that_answers_though_another_lies_there(
    server: Local, path: Path, tmp_path: Path
) -> None:
    wanted = Classifier.open(path, device="cpu").embed_names(["a new name"])
    shutil.rmtree(path)
    body = {"input": ["a new name"]}
    answer = httpx2.post(f"{server.url}/v1/embeddings", json=body, headers=KEY, timeout=60).json()
    np.testing.assert_allclose([answer["data"][0]["embedding"]], wanted, atol=1e-6)


def test_a_bad_bundle_is_refused_and_the_old_one_stays(server: Local, path: Path) -> None:
    before = labels(server.url)
    bank = path / "bank.safetensors"
    bank.write_bytes(bank.read_bytes()[:-1] + b"\0")
    answer = httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-bundle")
    assert "bank.safetensors" in answer.json()["detail"]
    shutil.rmtree(path)
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 422
    assert labels(server.url) == before
    assert labels(server.url, classes="teal", mode="only") == {"teal"}  # names are encoded without the folder
    assert server.metric("sar_reloads_total", outcome="refused") == 2


def test_requests_that_have_begun_end_with_the_bundle_they_began_with(
    either: Local, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, gate, reached = either.service.engine, threading.Event(), threading.Event()

    def waiting(compute: Any, images: Any) -> Any:
        reached.set()
        gate.wait(60)
        return compute(images)

    around(either, monkeypatch, waiting)
    found: list[set[str]] = []
    thread = threading.Thread(target=lambda: found.append(labels(either.url)))
    thread.start()
    assert reached.wait(30)
    replace(path, "one", "two")
    assert httpx2.post(f"{either.url}/v1/reload", headers=KEY, timeout=60).status_code == 200
    assert labels(either.url) == {"one", "two"}
    gate.set()
    thread.join(60)
    assert found == [{"red", "green", "blue", "grey thing"}]
    assert labels(either.url, classes="teal", mode="only") == {"teal"}
    with pytest.raises(RuntimeError, match="shutdown"):
        asyncio.run(old.names.embed(["teal"]))


def test_a_call_of_v2_that_is_still_read_has_the_classes_of_the_bundle_it_began_with(
    server: Local, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, gate, read = threading.Event(), threading.Event(), server.service.in_turn

    async def slowly(size: int, work: Callable[[], Any]) -> Any:
        reached.set()
        await asyncio.to_thread(gate.wait, 60)
        return await read(size, work)

    monkeypatch.setattr(server.service, "in_turn", slowly)
    photo = {"name": "IMAGE", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(jpeg()).decode()]}
    call = {"json": {"inputs": [photo], "outputs": [{"name": "LABELS"}]}, "headers": KEY, "timeout": 60}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx2.post, f"{server.url}/v2/models/sar-clip/infer", **call)
        assert reached.wait(30)
        replace(path, "one", "two")
        assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 200
        gate.set()
    assert answer.result().json()["outputs"][0]["data"] == ["red", "green", "blue", "grey thing"]


def test_changes_and_reloads_need_a_key(path: Path, tmp_path: Path) -> None:
    with local_server(Settings(bundle=path, bank=tmp_path / "mine.safetensors", device="cpu")) as server:
        for method, route in (("POST", "/v1/reload"), ("PUT", "/v1/classes/x"), ("DELETE", "/v1/classes/red")):
            answer = httpx2.request(method, server.url + route)
            assert (answer.status_code, answer.json()["code"]) == (403, "writes-disabled"), route
            assert "SAR_API_KEY" in answer.json()["detail"]
    with local_server(Settings(bundle=path, key="k", device="cpu")) as server:
        answer = httpx2.put(f"{server.url}/v1/classes/x", headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (403, "writes-disabled")
        assert "--bank" in answer.json()["detail"]


def test_readiness_runs_the_model(either: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.server.service._SELF_TEST_EVERY", 0.0)
    assert httpx2.get(f"{either.url}/readyz").json()["ready"]

    def scaled(factor: float) -> Callable[[Any, Any], list[Result]]:
        def call(compute: Any, tasks: Any) -> list[Result]:
            return [result._replace(row=result.row * np.float32(factor)) for result in compute(tasks)]

        return call

    for broken in (scaled(float("nan")), scaled(0.5), scaled(2), lambda compute, images: 1 / 0):
        with monkeypatch.context() as patch:
            around(either, patch, broken)  # type: ignore[arg-type]
            answer = httpx2.get(f"{either.url}/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert answer.json()["reason"]
        assert either.metric("sar_ready") == 0
        assert httpx2.get(f"{either.url}/healthz").status_code == 200
    assert httpx2.get(f"{either.url}/readyz").status_code == 200


def test_readiness_is_asked_of_the_model_at_most_every_two_seconds(
    either: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    around(either, monkeypatch, lambda compute, images: asked.append(1) or compute(images))  # type: ignore[func-returns-value]
    start = time.monotonic()
    for _ in range(20):
        assert httpx2.get(f"{either.url}/readyz", timeout=60).status_code == 200
    assert 1 <= len(asked) <= 1 + (time.monotonic() - start) / 2


def test_sighup_reloads_and_sigterm_drains(path: Path) -> None:
    with serving("--bundle", str(path), "--notice", "60") as server:
        replace(path, "one", "two")
        server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
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
        server.process.terminate()  # the second signal ends the drain
        assert server.process.wait(30) == 0
        assert server.log.read_text().endswith(" stopped\n")


def test_a_request_in_flight_is_answered_before_the_server_ends(path: Path) -> None:
    """Send the rest of a body after SIGTERM."""
    import socket

    image = jpeg()
    options = ("--bundle", str(path), "--body-timeout", "60")
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


def test_the_classifier_answers_alike(server: Local, path: Path) -> None:
    (result,) = Classifier.open(path, "cpu").classify(jpeg(), top_k=50)
    assert {p.label for p in result.predictions} == labels(server.url)


def test_a_reload_is_finished_if_its_client_gives_up(
    server: Local, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the client give up while the bank is carried over; the reload must not be left half done."""
    reached, gate = threading.Event(), threading.Event()
    open_store = BankStore.open

    def slow(*arguments: Any, **options: Any) -> BankStore:
        reached.set()
        gate.wait(60)
        return open_store(*arguments, **options)

    monkeypatch.setattr(BankStore, "open", slow)
    replace(path, "one", "two")
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=1)
    assert reached.wait(60)
    gate.set()
    end = time.monotonic() + 60
    while labels(server.url) != {"one", "two"}:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert httpx2.put(f"{server.url}/v1/classes/violet", headers=KEY).status_code == 201
    assert labels(server.url) == {"one", "two", "violet"}


def test_readiness_does_not_wait_in_the_queue(either: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()

    def held(compute: Any, tasks: Any) -> list[Result]:
        """Let what runs already go on once readiness is asked, and what waits when that is answered."""
        (answered if asked.is_set() and not any(map(is_self_test, tasks)) else asked).wait(60)
        return compute(tasks)  # type: ignore[no-any-return]

    def is_self_test(task: Task) -> bool:
        return isinstance(task.image, np.ndarray)  # others are encoded

    batcher = either.service.engine._batcher
    monkeypatch.setattr(batcher, "_max_batch", 2)  # so that the queue lasts
    around(either, monkeypatch, held)
    with ThreadPoolExecutor(21) as pool:
        waiting = [pool.submit(labels, either.url) for _ in range(20)]
        try:
            wait_for(lambda: either.metric("sar_queue_depth") == 20)
            ready = pool.submit(httpx2.get, f"{either.url}/readyz", timeout=60)
            wait_for(lambda: any(is_self_test(item.task) for item in [*batcher._waiting]))
            asked.set()
            assert ready.result().status_code == 200
            assert either.metric("sar_queue_depth") > 0
        finally:
            asked.set()
            answered.set()
        for one in waiting:
            one.result()


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
