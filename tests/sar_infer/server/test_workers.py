"""Worker processes: hostile images, processes that are killed, bundles that are replaced, and what is left over."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from support import faults
from support.bundles import write_bundle
from support.faults import CRASHES, GROWS, HANGS, PROCESS
from support.hanging import plant
from support.hostile_graphs import endless
from support.pictures import jpeg
from support.servers import Local, local_server, serving, wait_for
from support.servers import workers as worker_pids

from sar_infer.encoders.sessions import usable_cores
from sar_infer.server.model import opening, sizing, supervisor, workers
from sar_infer.server.settings import Limits, Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
IMAGE = {"Content-Type": "image/jpeg"}
KEY = {"Authorization": "Bearer k"}
GOOD = jpeg()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def settings(path: Path) -> Settings:
    limits = Limits(image_seconds=1, queue=100)
    return Settings(bundle=path, key="k", device="cpu", threads=1, workers=2, max_batch=8, limits=limits)


@pytest.fixture
def server(settings: Settings) -> Iterator[Local]:
    with local_server(settings) as local:
        yield local


@pytest.fixture
def flawed(path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    plant(path.parent / "flaw", monkeypatch, faults.flawed, PROCESS)
    with local_server(settings) as local:
        yield local


def classify(url: str, image: bytes = GOOD) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/classify", content=image, headers={**IMAGE, **KEY}, timeout=60)


def ready(server: Local) -> httpx2.Response:
    return httpx2.get(f"{server.url}/readyz", timeout=60)


def pids(server: Local) -> set[int]:
    found = server.service.engine.workers
    assert found is not None
    return set(found.pids)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.fixture
def brittle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the breaker after three deaths, for a second."""
    monkeypatch.setattr(supervisor, "MOST_DEATHS", 3)
    monkeypatch.setattr(supervisor, "PAUSE", 1)


@pytest.mark.parametrize(("bad", "says"), [(HANGS, "takes more than 1 s"), (CRASHES, "exit code -11")])
def test_an_image_that_ends_its_worker_is_refused_and_its_batch_mates_are_answered(
    flawed: Local, bad: bytes, says: str
) -> None:
    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(classify, flawed.url, image) for image in [GOOD, GOOD, bad, *[GOOD] * 12]]
        health = httpx2.get(f"{flawed.url}/healthz", timeout=5)
        answers = [one.result() for one in sent]
    refused = answers.pop(2)
    assert (refused.status_code, refused.json()["code"]) == (422, "undecodable-image")
    assert says in refused.json()["detail"]
    assert [answer.status_code for answer in answers] == [200] * 14
    assert health.status_code == 200
    assert flawed.metric("sar_worker_deaths_total", reason="time" if bad == HANGS else "crash") >= 1
    wait_for(lambda: flawed.metric("sar_workers") == 2)
    assert flawed.metric("sar_decode_memory_held_bytes") == 0


def test_in_a_call_of_several_images_the_guilty_one_fails_alone(flawed: Local) -> None:
    images = [base64.b64encode(image).decode() for image in (GOOD, CRASHES, GOOD, b"no image", GROWS, GOOD)]
    answer = httpx2.post(f"{flawed.url}/v1/classify", json={"images": images}, headers=KEY, timeout=60)
    assert answer.status_code == 200
    codes = [result["error_code"] for result in answer.json()["results"]]
    assert codes == [None, "undecodable-image", None, "unsupported-format", "image-too-large", None]


def test_an_image_that_takes_more_memory_than_its_price_costs_no_worker(flawed: Local) -> None:
    before = pids(flawed)
    refused = classify(flawed.url, GROWS)
    assert (refused.status_code, refused.json()["code"]) == (413, "image-too-large")
    assert classify(flawed.url).status_code == 200
    assert pids(flawed) == before


def test_killed_workers_under_load_lose_nothing(server: Local) -> None:
    stop = threading.Event()

    def ask() -> list[int]:
        with httpx2.Client(timeout=60, headers={**IMAGE, **KEY}) as client:
            codes = []
            while not stop.is_set():
                codes.append(client.post(f"{server.url}/v1/classify", content=GOOD).status_code)
            return codes

    killed: set[int] = set()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        try:
            while len(killed) < 6:
                wait_for(lambda: len(pids(server) - killed) == 2)
                victim = min(pids(server) - killed)
                killed.add(victim)
                os.kill(victim, signal.SIGKILL)
        finally:
            stop.set()
        codes = [code for one in asked for code in one.result()]
    assert len(codes) > 6
    assert set(codes) == {200}


def test_a_batch_that_waits_for_a_worker_is_not_overtaken(settings: Settings) -> None:
    """A worker may have died with it, and another takes seconds to start."""
    with local_server(replace(settings, workers=1)) as server:
        found, done, stop = server.service.engine.workers, [], threading.Event()
        assert found is not None
        image = server.service.engine.classifier.self_test.image

        def busy() -> None:
            while not stop.is_set():
                found.compute([image])
                done.append(1)

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(busy)
            try:
                for _ in range(5):
                    before = len(done)
                    found.compute([image])
                    assert len(done) - before < 10  # it was a thousand
                    wait_for(lambda before=before: len(done) > before + 2)  # type: ignore[misc]
            finally:
                stop.set()
            other.result()


def test_a_worker_that_dies_while_it_is_idle_is_replaced(server: Local) -> None:
    before = pids(server)
    os.kill(min(before), signal.SIGKILL)
    wait_for(lambda: len(pids(server) - {min(before)}) == 2)
    assert server.metric("sar_worker_deaths_total", reason="idle") == 1
    assert classify(server.url).status_code == 200


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_stopped_worker_has_is_answered_by_another(settings: Settings, count: int) -> None:
    with local_server(replace(settings, workers=count, limits=Limits(seconds=60))) as server:
        stopped = min(pids(server))
        os.kill(stopped, signal.SIGSTOP)
        with ThreadPoolExecutor(8) as pool:
            answers = [one.result() for one in [pool.submit(classify, server.url) for _ in range(8)]]
        assert {answer.status_code for answer in answers} == {200}
        wait_for(lambda: len(pids(server) - {stopped}) == count)
        assert server.metric("sar_worker_deaths_total", reason="silence") == 1
        assert not alive(stopped)


def test_a_long_queue_goes_to_a_worker_in_eights(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    gate, run = threading.Event(), workers.Workers._run

    def held(self: workers.Workers, tasks: Any, alone: bool) -> Any:
        gate.wait(60)
        handed.append(len(tasks))
        return run(self, tasks, alone)

    monkeypatch.setattr(workers.Workers, "_run", held)
    with local_server(replace(settings, workers=1, max_batch=2)) as server, ThreadPoolExecutor(20) as pool:
        sent = [pool.submit(classify, server.url) for _ in range(20)]
        wait_for(lambda: server.metric("sar_queue_depth") == 20)
        gate.set()
        assert {one.result().status_code for one in sent} == {200}
    assert handed == [1, 8, 8, 3]


def test_a_worker_that_grows_is_replaced_while_it_is_idle(
    path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(path.parent / "flaw", monkeypatch, faults.leaking, PROCESS)
    monkeypatch.setattr(workers, "_GROWTH", 2**26)
    with local_server(replace(settings, workers=1)) as server:
        (before,) = pids(server)
        assert classify(server.url).status_code == 200
        wait_for(lambda: server.metric("sar_worker_deaths_total", reason="memory") == 1)
        wait_for(lambda: len(pids(server) - {before}) == 1)
        assert classify(server.url).status_code == 200


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_a_lone_image_is_encoded_on_all_cores_if_the_graph_is_large(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "_LARGE_GRAPH", 1)
    with local_server(replace(settings, threads=None)) as server:
        assert server.service.engine.sizes.alone == usable_cores()
        threads = {pid: psutil.Process(pid).num_threads() for pid in pids(server)}
        with ThreadPoolExecutor(8) as pool:
            together = [pool.submit(classify, server.url) for _ in range(16)]
            answers = [one.result().json()["results"] for one in together]
        lone = classify(server.url).json()["results"]
        assert sum(psutil.Process(pid).num_threads() for pid in threads) > sum(threads.values())
    assert all(answer == lone for answer in answers)


def test_a_reload_swaps_the_workers(server: Local, path: Path) -> None:
    before = pids(server)
    shutil.rmtree(path)
    write_bundle(path, ("one", "two"), encoder_digest="f" * 64)
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 200
    assert {p["label"] for p in classify(server.url).json()["results"][0]["predictions"]} == {"one", "two"}
    assert not pids(server) & before
    wait_for(lambda: not any(map(alive, before)))


def test_a_worker_that_starts_later_runs_no_other_bundle_than_the_one_that_was_opened(
    server: Local, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, old = classify(server.url).json()["results"], pids(server)
    shutil.move(path, path.with_name("opened"))
    endless(write_bundle(path))
    dead, other = sorted(old)
    os.kill(dead, signal.SIGKILL)
    wait_for(lambda: "was replaced since the bundle was opened" in caplog.text)
    assert pids(server) == {other}
    assert classify(server.url).json()["results"] == before
    shutil.rmtree(path)
    shutil.move(path.with_name("opened"), path)
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 200
    assert len(pids(server) - old) == 2


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        (faults.die, "exit code 7"),
        (faults.hang, "within 0.5 s"),
        (endless, "within 0.5 s"),
    ],
)
def test_workers_that_die_or_hang_while_they_load_leave_the_old_bundle_in_service(
    server: Local, path: Path, monkeypatch: pytest.MonkeyPatch, flaw: Callable[..., Any], says: str
) -> None:
    before = pids(server)
    if flaw is endless:
        endless(path)
        monkeypatch.setattr(opening, "TRIAL_SECONDS", 0.5)
    else:
        plant(path.parent / "flaw", monkeypatch, flaw, PROCESS)
        monkeypatch.setattr(workers, "LOADING_SECONDS", 0.5 if flaw is faults.hang else 60)
    refused = httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad-bundle")
    assert says in refused.json()["detail"]
    assert classify(server.url).status_code == 200
    assert pids(server) == before
    wait_for(lambda: set(worker_pids(os.getpid())) == before, 10)


@pytest.mark.parametrize(("flaw", "says"), [(faults.die, "exit code 7"), (faults.hang, "within 1 s")])
def test_a_start_whose_workers_die_or_hang_is_one_line_and_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch, flaw: Callable[..., Any], says: str
) -> None:
    plant(path.parent / "flaw", monkeypatch, flaw, PROCESS)
    code = "import sar_infer.server.model.workers as workers\n"
    code += f"workers.LOADING_SECONDS = {1 if flaw is faults.hang else 60}\n"
    command = [sys.executable, "-c", code + "from sar_infer.cli.serve import main; main()"]
    ended = subprocess.run(
        [*command, "--bundle", str(path), "--workers", "2", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr
    assert ended.stderr.startswith(f"Error: {path / 'image_encoder.onnx'}: ")
    assert says in ended.stderr


@pytest.mark.usefixtures("brittle")
def test_a_crash_loop_opens_the_breaker_which_says_why_and_closes_again(
    server: Local, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        plant(path.parent / "flaw", patch, faults.die, PROCESS)
        for pid in pids(server):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "no worker process starts" in (ready(server).json()["reason"] or ""))
        assert ready(server).status_code == 503
        refused = classify(server.url)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert "Retry-After" in refused.headers
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
    wait_for(lambda: classify(server.url).status_code == 200)
    wait_for(lambda: ready(server).json()["ready"])
    wait_for(lambda: len(worker_pids(os.getpid())) == len(pids(server)) == 2)


@pytest.mark.usefixtures("brittle")
def test_where_no_process_can_be_started_those_that_live_go_on(server: Local, path: Path) -> None:
    """The file that is open has been overwritten, so no new process can read it."""
    graph = path / "image_encoder.onnx"
    sound, before = graph.read_bytes(), pids(server)
    graph.write_bytes(b"nonsense")
    os.kill(min(before), signal.SIGKILL)
    wait_for(lambda: server.metric("sar_workers") == 1)
    assert {classify(server.url).status_code for _ in range(5)} == {200}
    assert ready(server).json()["ready"]
    graph.write_bytes(sound)
    wait_for(lambda: len(pids(server)) == 2)  # another try, later
    graph.write_bytes(b"nonsense")
    for pid in pids(server):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: classify(server.url).status_code == 503)
    assert graph.name in classify(server.url).json()["detail"]
    graph.write_bytes(sound)
    wait_for(lambda: len(pids(server)) == 2)
    assert classify(server.url).status_code == 200


def test_workers_that_die_of_every_batch_open_the_breaker_too(
    path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MOST_DEATHS", 3)
    plant(path.parent / "flaw", monkeypatch, faults.deadly, PROCESS)
    with local_server(settings) as server:
        first, second = (classify(server.url) for _ in range(2))
        assert (first.status_code, first.json()["code"]) == (422, "undecodable-image")
        assert (second.status_code, second.json()["code"]) == (503, "unavailable")
        assert "exit code 9" in second.json()["detail"]
        wait_for(lambda: "exit code 9" in (ready(server).json()["reason"] or ""))
        assert ready(server).status_code == 503
        assert server.metric("sar_worker_deaths_total", reason="crash") == 3


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_server(path: Path, sent: signal.Signals) -> None:
    with serving("--bundle", str(path), "--workers", "2") as server:
        found = worker_pids(server.process.pid)
        assert len(found) == 2
        assert classify(server.url).status_code == 200
        server.process.send_signal(sent)
        server.process.wait(60)
        wait_for(lambda: not any(map(alive, found)), 10)


def test_sigterm_ends_a_server_whose_new_workers_never_load_and_them(path: Path) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        serving("--bundle", str(path), "--workers", "2", "--drain", "1", key="k") as server,
    ):
        endless(path)
        asked = pool.submit(httpx2.post, f"{server.url}/v1/reload", headers=KEY, timeout=60)
        wait_for(lambda: len(worker_pids(server.process.pid)) == 4)
        found = worker_pids(server.process.pid)
        server.process.terminate()
        server.process.wait(60)
        wait_for(lambda: not any(map(alive, found)), 10)
        assert asked.result().status_code == 503


def test_requests_in_flight_are_answered_though_everybody_is_told_to_stop(path: Path) -> None:
    """Send SIGTERM to the workers too, as service managers do."""
    with serving("--bundle", str(path), "--workers", "2", "--notice", "4") as server:
        for pid in worker_pids(server.process.pid):
            os.kill(pid, signal.SIGTERM)
        server.process.terminate()
        assert classify(server.url).status_code == 200
        assert server.process.wait(60) == 0


def test_workers_answer_as_one_process_does(path: Path, settings: Settings) -> None:
    with local_server(replace(settings, workers=0)) as alone, local_server(settings) as several:
        for colour in ((200, 30, 30), (30, 160, 90), (10, 20, 250)):
            image = jpeg(colour=colour)
            expected, found = (classify(one.url, image).json()["results"] for one in (alone, several))
            assert found == expected
