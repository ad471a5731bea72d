"""Which images run together, in what order, and what becomes of them if something fails."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sar_infer.processes.worker import DeathError, TimeLimitError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.batcher import Batcher
from sar_infer.server.model.process import Result, Task


class Computer:
    """Notes batches by their images' numbers, and answers when ``gate`` opens; number 13 ends the process."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []
        self.exit_code = -signal.SIGSEGV

    async def __call__(self, tasks: Sequence[Task], alone: bool) -> list[Result]:
        numbers = [int(task.image) for task in tasks]  # type: ignore[arg-type]
        self.batches.append(numbers)
        self.alone.append(alone)
        await self.gate.wait()
        if 13 in numbers:
            raise TimeLimitError(self.exit_code)
        return [Result(np.array([[number]], np.float32)) for number in numbers]


def run(
    test: Callable[[Batcher, Computer], Awaitable[object]], lanes: int = 1, max_batch: int = 4, **more: Any
) -> Metrics:
    metrics = Metrics()

    async def go() -> None:
        computer = Computer()
        async with asyncio.timeout(20):
            await test(Batcher(computer, lanes, max_batch, metrics, **more), computer)

    asyncio.run(go())
    return metrics


async def started(batcher: Batcher, numbers: Sequence[int]) -> list[asyncio.Task[Result]]:
    """Give images to the batcher one after the other; the first is running when this returns."""
    tasks = [asyncio.create_task(batcher.run(Task(b"%d" % number))) for number in numbers]
    await settled()
    return tasks


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def values(tasks: Sequence[asyncio.Task[Result]]) -> list[int | BaseException]:
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [result if isinstance(result, BaseException) else int(result.row[0, 0]) for result in results]  # type: ignore[index, union-attr, misc]


@pytest.mark.parametrize(
    ("options", "numbers", "batches"),
    [
        ({}, [5, 3, 9, 1, 7, 8, 2], [[5], [3, 9, 1, 7], [8, 2]]),
        ({"lanes": 2}, [1, 2, 3], [[1], [2], [3]]),
        # more than a batch has, as long as there is as much for the other lane
        ({"lanes": 2, "max_batch": 2, "shared": 5}, range(20, 37), [[20], [21], [*range(22, 27)], [*range(27, 32)]]),
    ],
)
def test_what_queued_while_busy_runs_together_in_order_and_each_gets_its_own(
    options: dict[str, Any], numbers: Sequence[int], batches: list[list[int]]
) -> None:
    async def test(batcher: Batcher, computer: Computer) -> None:
        tasks = [asyncio.create_task(batcher.run(Task(b"%d" % number))) for number in numbers]
        await settled()
        computer.gate.set()
        assert await values(tasks) == [*numbers]
        assert computer.batches[: len(batches)] == batches
        assert sorted(itertools.chain(*computer.batches)) == sorted(numbers)

    metrics = run(test, **options)
    assert metrics.registry.get_sample_value("sar_batch_size_sum") == len(numbers)


def test_an_image_runs_at_once_and_it_says_whether_it_is_alone() -> None:
    async def test(batcher: Batcher, computer: Computer) -> None:
        tasks = await started(batcher, [0])
        tasks += await started(batcher, [1, 2, 3])
        computer.gate.set()
        await values(tasks)
        await values(await started(batcher, [4]))
        assert computer.batches == [[0], [1], [2, 3], [4]]
        assert computer.alone == [True, False, False, True]

    run(test, lanes=2, max_batch=2)


def test_some_may_go_first() -> None:
    async def test(batcher: Batcher, computer: Computer) -> None:
        tasks = await started(batcher, [1, 2, 3, 4, 5, 6])
        probe = asyncio.create_task(batcher.run(Task(b"9"), first=True))
        await settled()
        computer.gate.set()
        await asyncio.gather(probe, *tasks)
        assert computer.batches[1][0] == 9

    run(test)


def test_a_cancelled_image_leaves_the_queue_or_ends_with_its_batch() -> None:
    async def test(batcher: Batcher, computer: Computer) -> None:
        tasks = await started(batcher, [1, 2, 3, 4])
        tasks[0].cancel()
        tasks[2].cancel()
        await settled()
        computer.gate.set()
        assert await values([tasks[1], tasks[3]]) == [2, 4]
        assert computer.batches == [[1], [2, 4]]

    run(test)


def test_an_error_of_a_batch_is_told_to_all_its_callers() -> None:
    async def test(batcher: Batcher, computer: Computer) -> None:
        async def broken(tasks: Sequence[Task], alone: bool) -> list[Result]:
            raise ArithmeticError

        batcher._compute = broken
        errors = await values(await started(batcher, [1, 2, 3]))
        assert [type(error) for error in errors] == [ArithmeticError] * 3

    run(test)


@pytest.mark.parametrize("lanes", [1, 2])
def test_when_a_worker_dies_each_image_of_its_batch_runs_again_alone(lanes: int) -> None:
    async def test(batcher: Batcher, computer: Computer) -> None:
        tasks = await started(batcher, [0] * lanes + [11, 13, 12, 14, 15])
        tasks[-2].cancel()
        await settled()
        computer.gate.set()
        answers = await values(tasks)
        assert isinstance(answers.pop(lanes + 1), DeathError)
        assert isinstance(answers.pop(-2), asyncio.CancelledError)
        assert answers == [0] * lanes + [11, 12, 15]
        assert computer.batches[lanes:] == [[11, 13, 12, 15], [11], [13], [12], [15]]

    run(test, lanes=lanes, max_batch=4)


@pytest.mark.parametrize(("ended_by", "turns"), [(signal.SIGKILL, 2), (signal.SIGALRM, 1)])
def test_only_an_image_that_alone_takes_too_long_to_decode_has_no_second_turn(ended_by: int, turns: int) -> None:
    async def test(batcher: Batcher, computer: Computer) -> None:
        computer.exit_code = -ended_by
        computer.gate.set()
        assert isinstance((await values(await started(batcher, [13])))[0], TimeLimitError)
        assert computer.batches == [[13]] * turns

    run(test)
