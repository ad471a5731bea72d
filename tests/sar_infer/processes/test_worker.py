"""Real worker processes, and everything that can happen to one of them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import tasks
from support.servers import wait_for

from sar_infer.processes.alone import answer_each
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


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


def test_a_worker_lives_through_an_interrupt(worker_and_ask: tuple[Worker[Any], Ask]) -> None:
    worker, ask = worker_and_ask
    os.kill(worker.pid, signal.SIGINT)
    assert ask(tasks.ignores, signal.SIGINT) is True


def test_a_worker_that_was_killed_is_not_alive_even_before_the_event_loop_turns(
    worker_and_ask: tuple[Worker[Any], Ask],
) -> None:
    worker, ask = worker_and_ask
    assert ask(tasks.divide, 2) == 0.5
    assert worker.alive
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert not worker.alive


def test_what_a_dead_worker_had_open_is_closed_without_a_collector() -> None:
    async def ask_the_dead() -> int:
        worker: Worker[Any] = Worker(tasks.call, limit=30)
        await asyncio.to_thread(worker.loaded, 60)
        with pytest.raises(DeathError):
            await worker.answer_async((tasks.kill,))
        del worker
        return len(os.listdir("/dev/fd"))

    gc.collect()
    gc.disable()
    try:
        first, *others = [asyncio.run(ask_the_dead()) for _ in range(3)]
    finally:
        gc.enable()
    assert others == [first] * 2


def test_a_worker_that_stops_reading_is_ended_too(worker_and_ask: tuple[Worker[Any], Ask]) -> None:
    worker, ask = worker_and_ask
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(TimeLimitError):
        ask(len, bytes(2**24))
    assert not worker.alive


def answers(tasks_: list[tuple[Any, ...]], workers: int = 2) -> list[Any]:
    """Return the answer to each task, or its error, in order."""
    return [answer for _, answer in sorted(answer_each(tasks.call, tasks_, workers), key=lambda pair: pair[0])]


def test_each_task_has_a_process_of_its_own_which_ends_with_it() -> None:
    pids = answers([(os.getpid,)] * 5)
    assert len({*pids, os.getpid()}) == 6
    assert not any(map(runs, pids))


@pytest.mark.parametrize(
    ("task", "code"), [((os._exit, 9), 9), ((tasks.kill,), -signal.SIGKILL), ((tasks.segfault,), -signal.SIGSEGV)]
)
def test_a_task_whose_process_dies_fails_alone(task: tuple[Any, ...], code: int) -> None:
    died, *others = answers([task, *((tasks.divide, n) for n in range(4))])
    assert (type(died), died.exit_code) == (DeathError, code)
    assert isinstance(others[0], ZeroDivisionError)
    assert others[1:] == [1 / n for n in range(1, 4)]


@pytest.mark.parametrize("load", [tasks.dying, tasks.raising])
def test_a_process_that_cannot_load_is_an_error_of_its_task(load: Callable[[], Any]) -> None:
    ((_, error),) = answer_each(load, [(tasks.divide, 1)], 1)
    assert isinstance(error, ValueError) if load is tasks.raising else error.exit_code == 7


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_end_if_the_answers_are_not_wanted_any_more() -> None:
    calls: list[tuple[Any, ...]] = [(os.getpid,), *[(tasks.hang,)] * 3]
    assert answers(calls[:1])  # so that what ``multiprocessing`` itself needs runs
    before, iterator = children(), answer_each(tasks.call, calls, 2)
    assert next(iterator)[0] == 0
    wait_for(lambda: children() - before)
    begun = children() - before
    iterator.close()
    wait_for(lambda: not any(map(runs, begun)))


def children() -> set[int]:
    """Return the processes that this one has started, and that have not been waited for."""
    started = (task / "children" for task in Path("/proc/self/task").iterdir())
    return {int(pid) for file in started if file.exists() for pid in file.read_text().split()}


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
