"""How images share the memory for decoding."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

from sar_infer.errors import ImageError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.memory import DecodeMemory
from sar_infer.server.problems import Problem

MIB = 2**20


class Memory(DecodeMemory):
    """With metrics of its own."""

    def __init__(self, total: int, seconds: float = 60) -> None:
        metrics = Metrics()
        self._shown = metrics.registry
        super().__init__(total, seconds, metrics)

    @property
    def metrics(self) -> tuple[float, float]:
        """Bytes held, and images that wait, as ``/metrics`` has them."""
        names = "sar_decode_memory_held_bytes", "sar_decode_memory_waiting"
        held, waiting = (self._shown.get_sample_value(name) for name in names)
        assert held is not None
        assert waiting is not None
        return held, waiting


class Images:
    """Tasks that each hold a share until the test releases them."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(self, name: str, amount: int) -> None:
        leave = self._leave[name] = asyncio.Event()

        async def hold() -> None:
            granted = await self.memory.take(amount, amount)
            self.inside.append(name)
            try:
                await leave.wait()
            finally:
                self.memory.free(granted)
            self.inside.remove(name)

        self.tasks[name] = asyncio.create_task(hold())
        await settle()

    async def go(self, name: str) -> None:
        self._leave[name].set()
        await self.tasks[name]
        await settle()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.tasks[name]
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_giants_go_one_after_the_other_and_small_images_pass() -> None:
    async def go() -> None:
        images = Images(Memory(160))  # 20 of them reserved for images of at most 10
        await images.come("first giant", 100)
        await images.come("second giant", 100)
        await images.come("third giant", 40)
        assert images.inside == ["first giant"]
        await images.come("small", 10)
        await images.come("other small", 10)
        assert images.inside == ["first giant", "small", "other small"]
        await images.come("one too many", 1)  # more than is reserved, while a giant waits
        assert images.memory.metrics[1] == 3
        await images.go("small")
        assert images.inside == ["first giant", "other small", "one too many"]
        await images.go("first giant")
        assert images.inside == ["other small", "one too many", "second giant", "third giant"]
        for name in list(images.inside):
            await images.go(name)
        assert images.memory.metrics == (0, 0)

    asyncio.run(go())


def test_small_images_without_end_do_not_keep_a_giant_out() -> None:
    async def go() -> None:
        images = Images(Memory(160))
        for i in range(16):
            await images.come(f"small {i}", 10)
        await images.come("giant", 140)
        for i in range(16):  # one goes, one comes
            await images.go(f"small {i}")
            await images.come(f"small {16 + i}", 10)
            if "giant" in images.inside:
                break
        assert "giant" in images.inside
        assert i < 15

    asyncio.run(go())


def test_a_cancelled_request_gives_back_its_place_or_its_memory() -> None:
    async def go() -> None:
        images = Images(Memory(160))
        await images.come("inside", 100)
        await images.come("waiting", 100)
        await images.come("behind", 100)
        await images.cancel("waiting")
        assert images.memory.metrics == (100, 1)
        await images.cancel("inside")
        assert images.inside[-1] == "behind"
        await images.go("behind")
        assert images.memory.metrics == (0, 0)

    asyncio.run(go())


def test_waiting_has_an_end() -> None:
    async def go() -> None:
        memory = Memory(160, seconds=0.05)
        granted = await memory.take(100, 100)
        with pytest.raises(Problem, match="memory") as caught:
            await memory.take(100, 100)
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
        memory.free(granted)
        assert memory.metrics == (0, 0)

    asyncio.run(go())


def test_an_image_that_fits_never_is_refused_and_one_that_may_not_fit_goes_alone() -> None:
    async def go() -> None:
        memory = Memory(160 * MIB)
        with pytest.raises(ImageError, match="141 MiB, .* 140 MiB") as caught:
            await memory.take(141 * MIB, 141 * MIB)
        assert caught.value.kind == "size"
        assert await memory.take(0, 500 * MIB) == memory.largest == 140 * MIB

    asyncio.run(go())


@settings(max_examples=examples(200))
@given(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 6), st.booleans()), max_size=30))
def test_no_more_is_held_than_there_is_and_all_get_their_turn(images: list[tuple[int, int, bool]]) -> None:
    """Let images of any size come, stay for some rounds, and be cancelled or not."""

    async def go() -> None:
        memory, most, served = Memory(160), 0.0, 0

        async def one(amount: int, rounds: int) -> None:
            nonlocal most, served
            granted = await memory.take(amount, amount)
            most, served = max(most, memory.metrics[0]), served + 1
            try:
                for _ in range(rounds):
                    await asyncio.sleep(0)
            finally:
                memory.free(granted)

        tasks = [asyncio.create_task(one(amount, rounds)) for amount, rounds, _ in images]
        await asyncio.sleep(0)
        for task, (_, _, cancelled) in zip(tasks, images, strict=True):
            if cancelled:
                task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert most <= 160
        assert all(error is None or isinstance(error, asyncio.CancelledError) for error in ended)
        assert served >= sum(not cancelled for _, _, cancelled in images)
        assert memory.metrics == (0, 0)

    asyncio.run(go())
