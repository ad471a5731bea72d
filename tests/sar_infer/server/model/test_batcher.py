from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sar_infer._arrays import Floats
from sar_infer.processes.worker import DeathError, TimeLimitError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.batcher import Batcher, Timed
from sar_infer.server.model.encoding import Computed, Encoding


class Encoder:
    """An encoder whose rows are the images' numbers; it waits at ``gate``, fails at 13, and gives NaN for infinity."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[float]] = []
        self.fails_above = 10_000

    def __call__(self, pixels: Sequence[Floats]) -> Floats:
        numbers = [float(image[0, 0, 0]) for image in pixels]
        self.batches.append(numbers)
        self.gate.wait(10)
        if 13.0 in numbers:
            raise RuntimeError("thirteen")
        if len(numbers) > self.fails_above:
            raise MemoryError("too many at once")
        spoilt = np.nan if np.inf in numbers else 0
        return np.array([[number + spoilt] for number in numbers], dtype=np.float32)


def image(number: float) -> Floats:
    return np.full((3, 1, 1), number, dtype=np.float32)


def same(pixels: Floats) -> Floats:
    """Decode anything but the number 99."""
    if pixels[0, 0, 0] == 99:
        raise ValueError("ninety-nine")
    return pixels


def value(row: Floats) -> float:
    return float(row[0, 0])


def run(
    test: Callable[[Batcher[Floats], Encoder], object], workers: int = 1, max_batch: int = 4, **more: Any
) -> Metrics:
    metrics, encoder = Metrics(), Encoder()

    async def go() -> None:
        batcher = Batcher(Encoding(same, encoder, 8), workers, max_batch, metrics, **more)
        try:
            async with asyncio.timeout(20):
                await test(batcher, encoder)  # type: ignore[misc]
        finally:
            encoder.gate.set()
            batcher.close()

    asyncio.run(go())
    return metrics


async def started(
    batcher: Batcher[Floats], encoder: Encoder, numbers: Sequence[float]
) -> list[asyncio.Task[Timed[float]]]:
    """Give images to the batcher one after the other; the first is running when this returns."""
    tasks = [asyncio.create_task(batcher.run(image(number), value)) for number in numbers]
    while not encoder.batches:
        await asyncio.sleep(0.001)
    return tasks


def test_a_lone_image_runs_at_once_and_alone() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        encoder.gate.set()
        for number in (1.0, 2.0):
            timed = await batcher.run(image(number), value)
            assert timed.value == number
            assert timed.queue < 0.5
        assert encoder.batches == [[1.0], [2.0]]

    run(test)


def test_what_queued_while_busy_runs_together_in_order_and_each_gets_its_own() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [5, 3, 9, 1, 7, 8, 2])
        encoder.gate.set()
        assert [(await task).value for task in tasks] == [5, 3, 9, 1, 7, 8, 2]
        assert encoder.batches == [[5], [3, 9, 1, 7], [8, 2]]

    metrics = run(test)
    assert metrics.registry.get_sample_value("sar_batch_size_sum") == 7
    assert metrics.registry.get_sample_value("sar_batch_size_count") == 3


def test_workers_run_side_by_side() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [1, 2, 3])
        while len(encoder.batches) < 2:
            await asyncio.sleep(0.001)
        encoder.gate.set()
        assert [(await task).value for task in tasks] == [1, 2, 3]
        assert encoder.batches == [[1], [2], [3]]

    run(test, workers=2)


def test_a_worker_takes_more_at_once_while_there_is_as_much_for_the_others() -> None:
    taken: list[int] = []
    gate = threading.Event()

    def compute(images: Sequence[Floats], alone: bool) -> Computed:
        gate.wait(10)
        taken.append(len(images))
        return Computed([pixels.reshape(1, -1) for pixels in images], *[[0.0] * len(images)] * 3)

    async def go() -> None:
        batcher = Batcher(compute, 2, 2, shared=5)
        tasks = [asyncio.create_task(batcher.run(image(number), value)) for number in range(2 + 15)]
        await asyncio.sleep(0)
        gate.set()
        assert [(await task).value for task in tasks] == [*range(17)]
        batcher.close()

    asyncio.run(go())
    assert sorted(taken) == [1, 1, 1, 2, 2, 5, 5]  # two that find a worker idle, then of 15, 10, 5, 3 and 1 that wait


def test_what_takes_long_makes_few_others_wait() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [0, 1, 2, 3, 50, 51, 52, 53, 4, 5])
        encoder.gate.set()
        assert [(await task).value for task in tasks] == [0, 1, 2, 3, 50, 51, 52, 53, 4, 5]
        assert encoder.batches == [[0], [1, 2, 3], [50, 51], [52, 53, 4, 5]]

    run(test, max_batch=2, shared=6, light=lambda pixels: pixels[0, 0, 0] < 50)


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_images_that_come_together_may_be_encoded_in_parts(most: int, side_by_side: bool) -> None:
    encoder = Encoder()
    encoder.gate.set()
    numbers = [0, 1, 99, 13, 4, 5, 6]
    with ThreadPoolExecutor(3) as pool:
        encoding = Encoding(same, encoder, most, pool=pool if side_by_side else None)
        computed = encoding([image(number) for number in numbers])
    assert [row if isinstance(row, Exception) else value(row) for row in computed.rows[:2]] == [0, 1]
    assert [str(error) for error in computed.rows[2:4]] == ["ninety-nine", "thirteen"]
    assert [value(row) for row in computed.rows[4:] if not isinstance(row, Exception)] == [4, 5, 6]
    assert [len(computed.decode), len(computed.infer)] == [7, 7]
    assert [*computed.queue] == sorted(computed.queue)
    assert len({*computed.queue}) == -(-7 // most)
    assert max(map(len, encoder.batches)) == min(most, 6)


def test_one_that_fails_takes_no_other_with_it() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [0, 11, 12, 13, 14])
        encoder.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(result, "value", None) for result in results] == [0, 11, 12, None, 14]
        assert isinstance(results[3], RuntimeError)
        assert (await batcher.run(image(4), value)).value == 4

    run(test)


def test_one_that_spoils_the_rows_of_its_batch_keeps_that_to_itself() -> None:
    """Fail as INT8 graphs do, whose images share their ranges."""

    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [1, 2, np.inf, 4, 5])
        encoder.gate.set()
        assert [(await task).value for task in (*tasks[:2], *tasks[3:])] == [1, 2, 4, 5]
        assert np.isnan((await tasks[2]).value)

    run(test)


def test_one_that_cannot_be_decoded_takes_no_other_with_it() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [0, 11, 99, 12])
        encoder.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(result, "value", None) for result in results] == [0, 11, None, 12]
        assert isinstance(results[2], ValueError)
        assert encoder.batches == [[0], [11, 12]]
        with pytest.raises(ValueError, match="ninety-nine"):
            await batcher.run(image(99), value)

    run(test)


def test_a_batch_that_is_too_much_is_halved() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        encoder.fails_above = 1
        tasks = await started(batcher, encoder, [0, 1, 2, 3, 4])
        encoder.gate.set()
        assert [(await task).value for task in tasks] == [0, 1, 2, 3, 4]

    run(test)


def test_a_failure_to_finish_is_its_callers_alone() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        encoder.gate.set()
        good, bad = await asyncio.gather(
            batcher.run(image(1), value), batcher.run(image(2), lambda row: 1 / 0), return_exceptions=True
        )
        assert isinstance(good, Timed)
        assert isinstance(bad, ZeroDivisionError)

    run(test)


def test_a_cancelled_request_gets_no_result() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [1, 2, 3, 4])
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0)
        encoder.gate.set()
        assert [(await tasks[1]).value, (await tasks[3]).value] == [2, 4]
        assert encoder.batches == [[1], [2, 4]]

    run(test)


def test_an_encoder_that_loses_a_row_is_noticed() -> None:
    async def go() -> None:
        batcher = Batcher(Encoding(same, lambda pixels: np.zeros((0, 1), dtype=np.float32), 4), 1, 4, Metrics())
        with pytest.raises(RuntimeError, match="0 rows"):
            await batcher.run(image(1), value)
        batcher.close()

    asyncio.run(go())


def test_the_image_of_a_cancelled_request_leaves_the_queue() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [1, 2, 3])
        tasks[1].cancel()
        await asyncio.sleep(0.01)
        encoder.gate.set()
        assert (await tasks[2]).value == 3
        assert encoder.batches == [[1], [3]]

    run(test)


def test_some_may_go_first() -> None:
    async def test(batcher: Batcher[Floats], encoder: Encoder) -> None:
        tasks = await started(batcher, encoder, [1, 2, 3, 4, 5, 6])
        probe = asyncio.create_task(batcher.run(image(9), value, first=True))
        await asyncio.sleep(0)
        encoder.gate.set()
        await asyncio.gather(probe, *tasks)
        assert encoder.batches[1][0] == 9

    run(test)


def test_when_a_worker_dies_each_image_of_its_batch_runs_again_alone() -> None:
    batches: list[list[float]] = []
    gate = threading.Event()

    def compute(images: Sequence[Floats], alone: bool) -> Computed:
        numbers = [float(one[0, 0, 0]) for one in images]
        batches.append(numbers)
        gate.wait(10)
        if 13 in numbers:
            raise DeathError(-11)
        return Computed([np.array([[n]], np.float32) for n in numbers], *[[0.0] * len(numbers)] * 3)

    async def go() -> None:
        batcher = Batcher(compute, 1, 4, Metrics())
        tasks = [asyncio.create_task(batcher.run(image(n), value)) for n in (0, 11, 13, 12, 14, 15)]
        while not batches:
            await asyncio.sleep(0.001)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(result, "value", None) for result in results] == [0, 11, None, 12, 14, 15]
        assert isinstance(results[2], DeathError)
        batcher.close()

    asyncio.run(go())
    assert batches == [[0], [11, 13, 12, 14], [11], [13], [12], [14], [15]]


def test_it_says_whether_an_image_is_alone() -> None:
    told: list[tuple[int, bool]] = []
    gate = threading.Event()

    def compute(images: Sequence[Floats], alone: bool) -> Computed:
        told.append((len(images), alone))
        gate.wait(10)
        return Computed([np.zeros((1, 1), np.float32)] * len(images), *[[0.0] * len(images)] * 3)

    async def go() -> None:
        batcher = Batcher(compute, 2, 2, Metrics())
        tasks = [asyncio.create_task(batcher.run(image(0), value))]
        while not told:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher.run(image(n), value)) for n in range(3)]
        while len(told) < 2:
            await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(*tasks)
        await batcher.run(image(4), value)
        batcher.close()

    asyncio.run(go())
    assert told == [(1, True), (1, False), (2, False), (1, True)]


@pytest.mark.parametrize(("ended_by", "turns"), [(signal.SIGKILL, 2), (signal.SIGALRM, 1)])
def test_only_an_image_that_alone_takes_too_long_to_decode_has_no_second_turn(ended_by: int, turns: int) -> None:
    runs: list[int] = []

    def compute(images: Sequence[Floats], alone: bool) -> Computed:
        runs.append(len(images))
        raise TimeLimitError(-ended_by)

    async def go() -> None:
        batcher = Batcher(compute, 1, 4, Metrics())
        with pytest.raises(TimeLimitError):
            await batcher.run(image(1), value)
        batcher.close()

    asyncio.run(go())
    assert runs == [1] * turns
