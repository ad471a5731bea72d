"""Worker processes: hostile images, processes that are killed, bundles that are replaced, and what is left over."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from support import faults
from support.bundles import write_bundle
from support.faults import CRASHES, HANGS, KILLED, PROCESS
from support.hanging import plant
from support.hostile_graphs import endless
from support.pictures import jpeg
from support.servers import Compute, Local, around, local_server, serving, wait_for
from support.servers import ready_workers as pids
from support.servers import workers as worker_pids

from sar_infer.encoders.sessions import usable_cores
from sar_infer.server.model import sizing, supervisor, workers
from sar_infer.server.model.process import Result, Task
from sar_infer.server.settings import Limits, Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
KEY = {"Authorization": "Bearer k"}
IMAGE = {"Content-Type": "image/jpeg", **KEY}
GOOD = jpeg()


def settings_for(path: Path, **options: Any) -> Settings:
    limits = Limits(image_seconds=1, seconds=60, queue=100)
    return Settings(
        **{"bundle": path, "key": "k", "device": "cpu", "threads": 1, "workers": 2, "max_batch": 8, "limits": limits}
        | options
    )


@contextmanager
def planted(folder: Path, flaw: Callable[..., Any], module: str) -> Iterator[None]:
    """Give processes that start in the block a flaw."""
    with pytest.MonkeyPatch.context() as patch:
        plant(folder / "flaw", patch, flaw, module)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Return a server with two workers, whose decoder has flaws."""
    folder = tmp_path_factory.mktemp("workers")
    with (
        planted(folder, faults.flawed, PROCESS),
        local_server(settings_for(write_bundle(folder / "bundle"))) as local,
    ):
        yield local


@pytest.fixture
def path(server: Local) -> Iterator[Path]:
    """Return its bundle, which a test may change; afterwards all is as before."""
    bundle = server.service.settings.bundle
    assert isinstance(bundle, Path)
    yield bundle
    shutil.rmtree(bundle)
    write_bundle(bundle)
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 200


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Return a server with one worker."""
    bundle = write_bundle(tmp_path_factory.mktemp("single") / "bundle")
    with local_server(settings_for(bundle, workers=1, max_batch=2)) as local:
        yield local


def classify(server: Local, image: bytes = GOOD) -> httpx2.Response:
    return httpx2.post(f"{server.url}/v1/classify", content=image, headers=IMAGE, timeout=60)


def statuses(server: Local, count: int) -> set[int]:
    """Return the statuses of so many requests at once."""
    with ThreadPoolExecutor(count) as pool:
        return {one.result().status_code for one in [pool.submit(classify, server) for _ in range(count)]}


def ready(server: Local) -> httpx2.Response:
    return httpx2.get(f"{server.url}/readyz", timeout=60)


def deaths(server: Local, reason: str) -> float:
    return server.metric("sar_worker_deaths_total", reason=reason)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers again a second after one did not start."""
    monkeypatch.setattr(supervisor, "PAUSE", 1)


@pytest.mark.parametrize(
    ("bad", "code", "says", "reason"),
    [
        (HANGS, "undecodable-image", "takes more than 1 s", "time"),
        (CRASHES, "undecodable-image", "exit code -11", "crash"),
        (KILLED, "unavailable", "killed twice", "crash"),  # which says nothing of the image
    ],
)
def test_an_image_that_ends_its_worker_is_refused_and_its_batch_mates_are_answered(
    server: Local, bad: bytes, code: str, says: str, reason: str
) -> None:
    before = deaths(server, reason)
    with ThreadPoolExecutor(16) as threads:
        sent = [threads.submit(classify, server, image) for image in [GOOD, GOOD, bad, *[GOOD] * 12]]
        answers = [one.result() for one in sent]
    refused = answers.pop(2)
    assert (refused.status_code, refused.json()["code"]) == (503 if code == "unavailable" else 422, code)
    assert says in refused.json()["detail"]
    assert {answer.status_code for answer in answers} == {200}
    assert deaths(server, reason) > before
    wait_for(lambda: server.metric("sar_workers") == 2)


def test_killed_workers_under_load_lose_nothing(server: Local) -> None:
    stop = threading.Event()

    def ask() -> list[int]:
        codes = []
        with httpx2.Client(timeout=60, headers=IMAGE) as client:
            while not stop.is_set():
                codes.append(client.post(f"{server.url}/v1/classify", content=GOOD).status_code)
        return codes

    killed: set[int] = set()
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            while len(killed) < 4:
                wait_for(lambda: len(pids(server) - killed) == 2)
                victim = min(pids(server) - killed)
                killed.add(victim)
                os.kill(victim, signal.SIGKILL)
        finally:
            stop.set()
        codes = [code for one in clients for code in one.result()]
    assert len(codes) > 4
    assert set(codes) == {200}


def test_a_worker_that_dies_while_it_is_idle_is_replaced(server: Local) -> None:
    wait_for(lambda: len(pids(server)) == 2)
    victim, count = min(pids(server)), deaths(server, "idle")
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(pids(server) - {victim}) == 2)
    assert deaths(server, "idle") == count + 1


@pytest.mark.parametrize("name", ["server", "single"])
def test_what_a_stopped_worker_has_is_answered_by_another(name: str, request: pytest.FixtureRequest) -> None:
    server: Local = request.getfixturevalue(name)
    stopped, count = min(pids(server)), len(pids(server))
    before = deaths(server, "crash") + deaths(server, "idle")
    os.kill(stopped, signal.SIGSTOP)
    assert statuses(server, 8) == {200}
    wait_for(lambda: len(pids(server) - {stopped}) == count)
    assert deaths(server, "crash") + deaths(server, "idle") == before + 1
    assert not alive(stopped)


def test_a_long_queue_goes_to_a_worker_in_eights(single: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    gate = threading.Event()

    def held(compute: Compute, tasks: Sequence[Task]) -> list[Result]:
        gate.wait(60)
        handed.append(len(tasks))
        return compute(tasks)

    around(single, monkeypatch, held)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(statuses, single, 20)
        wait_for(lambda: single.metric("sar_queue_depth") == 20)
        gate.set()
        assert sent.result() == {200}
    assert handed == [1, 8, 8, 3]


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_a_lone_image_is_encoded_on_all_cores_if_the_graph_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "_LARGE_GRAPH", 1)
    with local_server(settings_for(write_bundle(tmp_path / "bundle"), threads=None)) as server:
        assert server.service.engine.sizes.alone == usable_cores()
        threads = {pid: psutil.Process(pid).num_threads() for pid in pids(server)}
        assert statuses(server, 16) == {200}
        lone, again = (classify(server).json()["results"] for _ in range(2))
        assert sum(psutil.Process(pid).num_threads() for pid in threads) > sum(threads.values())
    assert lone == again


def test_a_worker_that_starts_later_runs_no_other_bundle_than_the_one_that_was_opened(
    server: Local, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wait_for(lambda: len(pids(server)) == 2)
    before, old = classify(server).json()["results"], pids(server)
    shutil.move(path, path.with_name("opened"))
    endless(write_bundle(path))
    dead, other = sorted(old)
    os.kill(dead, signal.SIGKILL)
    wait_for(lambda: "was replaced since the bundle was opened" in caplog.text)
    assert pids(server) == {other}
    assert classify(server).json()["results"] == before
    shutil.rmtree(path)
    shutil.move(path.with_name("opened"), path)
    assert httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60).status_code == 200
    assert len(pids(server) - old) == 2
    wait_for(lambda: not any(map(alive, old)))


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        (faults.die, "exit code 7"),
        (faults.stop, "exit code -9"),
        (faults.hang, "took too long"),
    ],
)
def test_workers_that_die_or_hang_while_they_load_leave_the_old_bundle_in_service(
    server: Local, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flaw: Callable[..., Any], says: str
) -> None:
    wait_for(lambda: len(pids(server)) == 2)
    before, others = pids(server), set(worker_pids(os.getpid())) - pids(server)
    plant(tmp_path / "flaw", monkeypatch, flaw, PROCESS)
    monkeypatch.setattr(workers, "LOADING_SECONDS", 0.5 if flaw is faults.hang else 60)
    refused = httpx2.post(f"{server.url}/v1/reload", headers=KEY, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad-bundle")
    assert says in refused.json()["detail"]
    assert classify(server).status_code == 200
    assert pids(server) == before
    wait_for(lambda: set(worker_pids(os.getpid())) - others == before)


@pytest.mark.usefixtures("impatient")
def test_while_no_worker_starts_answers_say_why_and_then_all_is_well_again(server: Local, tmp_path: Path) -> None:
    wait_for(lambda: len(pids(server)) == 2)
    with planted(tmp_path, faults.die, PROCESS):
        for pid in pids(server):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "no worker process starts" in (ready(server).json()["reason"] or ""))
        assert ready(server).status_code == 503
        refused = classify(server)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert "Retry-After" in refused.headers
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
    wait_for(lambda: classify(server).status_code == 200)
    wait_for(lambda: ready(server).json()["ready"])
    wait_for(lambda: len(pids(server)) == 2)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_server(bundle_path: Path, sent: signal.Signals) -> None:
    with serving("--bundle", str(bundle_path), "--workers", "2") as server:
        children = worker_pids(server.process.pid)
        assert len(children) == 2
        server.process.send_signal(sent)
        server.process.wait(60)
        wait_for(lambda: not any(map(alive, children)))


def test_requests_are_answered_during_the_notice_though_everybody_is_told_to_stop(bundle_path: Path) -> None:
    """Send SIGTERM to the workers too, as service managers do; a second one to the server ends the notice."""
    with (
        serving("--bundle", str(bundle_path), "--workers", "2", "--set", "notice=60") as server,
        httpx2.Client(base_url=server.url, headers=IMAGE, timeout=60) as client,
    ):
        assert "connection" not in client.get("/healthz").headers
        for pid in worker_pids(server.process.pid):
            os.kill(pid, signal.SIGTERM)
        server.process.terminate()
        server.logged("not ready any more")
        answer = client.post("/v1/classify", content=GOOD)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        server.process.terminate()
        assert server.process.wait(60) == 0
