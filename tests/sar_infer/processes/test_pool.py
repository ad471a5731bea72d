"""Pools of real processes, and everything that can happen to one of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import tasks

from sar_infer.processes.pool import StartError, WorkerPool
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def until(check: Callable[[], Any], seconds: float = 30) -> Any:
    """Return the check's value once it is true, or at the end of the time."""
    end = time.monotonic() + seconds
    while not (value := check()) and time.monotonic() < end:
        time.sleep(0.01)
    return value


def runs(pid: int) -> bool:
    """Return True if a process is there of which any thread has not ended; its files stay open until all have."""
    try:
        os.kill(pid, 0)
        proc = Path(f"/proc/{pid}")
        if not proc.exists():
            return True
        state = (proc / "stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z" or len(list((proc / "task").iterdir())) > 1
    except OSError:
        return False


def test_all_are_started_at_once_and_live_through_interrupts() -> None:
    with WorkerPool(tasks.call, 2) as pool:
        assert pool.pids == []
        pool.start()
        first = set(pool.pids)
        assert len(first) == 2
        for pid in first:
            os.kill(pid, signal.SIGINT)
        assert {pool.submit(tasks.ignores, signal.SIGINT).result() for _ in range(4)} == {True}
        assert set(pool.pids) == first


@pytest.mark.parametrize(
    ("task", "code"), [((os._exit, 9), 9), ((tasks.kill,), -signal.SIGKILL), ((tasks.segfault,), -signal.SIGSEGV)]
)
def test_a_process_that_dies_is_replaced_and_disturbs_no_other(task: tuple[Any, ...], code: int) -> None:
    with WorkerPool(tasks.call, 2) as pool:
        pool.start()
        before = set(pool.pids)
        futures = [pool.submit(*task), *(pool.submit(tasks.divide, n) for n in range(1, 9))]
        with pytest.raises(DeathError) as caught:
            futures[0].result()
        assert (caught.value.exit_code, isinstance(caught.value, TimeLimitError)) == (code, False)
        assert [future.result() for future in futures[1:]] == [1 / n for n in range(1, 9)]
        assert len(before & set(pool.pids)) == 1


def test_one_that_dies_while_it_waits_costs_no_task() -> None:
    with WorkerPool(tasks.call, 1) as pool:
        pool.start()
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: not runs(pid))
        assert pool.submit(os.getpid).result() != pid


Ask = Callable[..., Any]


@pytest.fixture(params=["thread", "event loop"])
def worker_and_ask(request: pytest.FixtureRequest) -> Iterator[tuple[Worker[Any], Ask]]:
    """Yield a worker with a limit of a second, and a function that asks it in a thread or in an event loop."""
    worker: Worker[Any] = Worker(tasks.call, limit=1)
    worker.loaded(60)
    with asyncio.Runner() as runner:
        in_loop = request.param == "event loop"
        yield worker, lambda *task: runner.run(worker.answer_async(task)) if in_loop else worker.answer(task)
        worker.kill()
        worker.ended()


def test_a_worker_answers_tasks_of_any_size_whatever_they_raise(worker_and_ask: tuple[Worker[Any], Ask]) -> None:
    worker, ask = worker_and_ask
    content = os.urandom(2**24)
    assert ask(bytes, content) == content
    with pytest.raises(ZeroDivisionError) as caught:
        ask(tasks.divide, 0)
    assert "in divide" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        ask(tasks.odd)
    for unsendable in (lambda: 1, (None for _ in ())):
        with pytest.raises((TypeError, AttributeError)):
            ask(unsendable)
    assert ask(os.getpid) == worker.pid != os.getpid()


def test_a_worker_that_dies_or_takes_too_long_is_ended(worker_and_ask: tuple[Worker[Any], Ask]) -> None:
    worker, ask = worker_and_ask
    with pytest.raises(TimeLimitError):
        ask(tasks.hang)
    assert not worker.alive
    with pytest.raises((DeathError, OSError)):
        ask(tasks.divide, 1)


def test_a_worker_that_dies_says_how(worker_and_ask: tuple[Worker[Any], Ask]) -> None:
    with pytest.raises(DeathError) as caught:
        worker_and_ask[1](os._exit, 9)
    assert (caught.value.exit_code, isinstance(caught.value, TimeLimitError)) == (9, False)


def test_a_worker_that_was_killed_is_not_alive_even_before_the_event_loop_turns(
    worker_and_ask: tuple[Worker[Any], Ask],
) -> None:
    worker, ask = worker_and_ask
    assert ask(tasks.divide, 2) == 0.5
    assert worker.alive
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert not worker.alive


def test_a_worker_that_stops_reading_is_ended_too(worker_and_ask: tuple[Worker[Any], Ask]) -> None:
    worker, ask = worker_and_ask
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(TimeLimitError):
        ask(len, bytes(2**24))
    assert not worker.alive


@pytest.mark.parametrize(("load", "starts"), [(tasks.dying, 3), (tasks.raising, 1)])
def test_a_process_that_cannot_load_is_not_started_for_ever(
    tmp_path: Path, load: Callable[[Path], Any], starts: int
) -> None:
    with WorkerPool(partial(load, tmp_path / "log"), 1) as pool:
        futures = [pool.submit(tasks.divide, 1) for _ in range(9)]
        errors = {type(future.exception(timeout=60)) for future in futures}
        cause = futures[0].exception().__cause__  # type: ignore[union-attr]
        assert errors == {StartError}
        assert isinstance(cause, ValueError) if load is tasks.raising else cause.exit_code == 7  # type: ignore[union-attr]
        with pytest.raises(StartError):
            pool.start()
    pids = [*map(int, (tmp_path / "log").read_text().split())]
    assert len(pids) == starts
    assert not any(map(runs, pids))


def test_one_that_dies_by_chance_while_it_loads_is_started_again(tmp_path: Path) -> None:
    with WorkerPool(partial(tasks.dying_once, tmp_path / "log"), 1) as pool:
        assert pool.submit(tasks.divide, 2).result() == 0.5


def test_a_pool_can_be_closed_while_its_processes_start() -> None:
    pool = WorkerPool(tasks.hang, 2)
    futures = [pool.submit() for _ in range(4)]
    assert until(lambda: pool.pids)
    pids = pool.pids
    pool.close(now=True)
    assert all(future.done() for future in futures)
    assert not any(map(runs, pids))


def test_each_task_has_a_process_of_its_own_if_asked_for() -> None:
    with WorkerPool(tasks.call, 2, fresh=True) as pool:
        pids = [future.result() for future in as_completed([pool.submit(os.getpid) for _ in range(5)])]
        assert len(set(pids)) == 5
        assert not any(map(runs, pids))


def test_each_task_is_answered_once_whenever_processes_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sar_infer.processes.pool._MOST_FAILED", 99)  # a busy machine may have several die as they load
    chance, log, answered = random.Random(0), tmp_path / "log", dict[int, int]()
    with WorkerPool(tasks.call, 2) as pool:
        pool.start()
        left, kills = [*range(300)], 0
        while left:
            futures = {pool.submit(tasks.note, log, number): number for number in left}
            for count, future in enumerate(as_completed(futures)):
                if error := future.exception():
                    assert isinstance(error, DeathError)
                else:
                    assert answered.setdefault(futures[future], future.result()) == future.result()
                if kills < 12 and count % 20 == chance.randrange(20) and (pids := pool.pids):
                    with suppress(ProcessLookupError):  # one that was killed before, and whose task was answered since
                        os.kill(chance.choice(pids), signal.SIGKILL)
                        kills += 1
            left = [number for number in left if number not in answered]
        assert kills >= 5
    lines = log.read_text().splitlines()
    assert sorted(answered) == sorted({*map(int, lines)}) == [*range(300)]
    assert len(lines) - 300 <= kills  # only one that died after its work, before its answer, was done again


PROGRAM = """
import sys
from support import tasks
from sar_infer.processes.pool import WorkerPool

if __name__ == "__main__":
    with WorkerPool(tasks.call, 3) as pool, WorkerPool(tasks.hang, 1) as loading:
        pool.start()
        hangs = pool.submit(tasks.hang)
        loads = loading.submit(tasks.hang)
        while not loading.pids:
            pass
        print(*pool.pids, *loading.pids, flush=True)
        hangs.result()
"""


def test_no_process_outlives_its_parent_whatever_it_is_doing(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, program], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [*map(int, parent.stdout.readline().split())]
    assert len(pids) == 4
    assert all(map(runs, pids))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    ended = until(lambda: not any(map(runs, pids)))
    for pid in filter(runs, pids):
        os.kill(pid, signal.SIGKILL)
    assert ended, "a process outlives its parent"


def test_a_worker_that_ignores_sigterm_does_not_hold_up_the_exit() -> None:
    code = """
import signal
from support import tasks
from sar_infer.processes.worker import Worker

worker = Worker(tasks.call)
worker.loaded(60)
worker.answer((signal.signal, signal.SIGTERM, signal.SIG_IGN))
raise SystemExit(3)
"""
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=60).returncode == 3
