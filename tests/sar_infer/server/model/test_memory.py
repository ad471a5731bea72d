"""The memory for decoding: how much there is, and how images share it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

from sar_infer.errors import ImageError
from sar_infer.processes.worker import DeathError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model import sizing
from sar_infer.server.model.memory import DecodeMemory, Share
from sar_infer.server.model.sizing import bodies_limit, decode_memory, memory_limit, resident
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Settings

MIB, GIB = 2**20, 2**30


class Memory(DecodeMemory):
    """With metrics of its own."""

    def __init__(self, total: int, seconds: float) -> None:
        metrics = Metrics()
        self.shown = metrics.registry
        super().__init__(total, seconds, metrics)


def memory(total: int, seconds: float = 60) -> Memory:
    return Memory(total, seconds)


def held(given: Memory) -> float:
    return given.shown.get_sample_value("sar_decode_memory_held_bytes") or 0


def waiting(given: Memory) -> float:
    return given.shown.get_sample_value("sar_decode_memory_waiting") or 0


class Images:
    """Tasks that each hold a share until the test releases them."""

    def __init__(self, given: DecodeMemory) -> None:
        self.memory = given
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(self, name: str, amount: int) -> None:
        leave = self._leave[name] = asyncio.Event()

        async def hold() -> None:
            async with self.memory.share(amount, amount):
                self.inside.append(name)
                await leave.wait()
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
        images = Images(memory(160))  # 20 of them reserved for images of at most 10
        await images.come("first giant", 100)
        await images.come("second giant", 100)
        await images.come("third giant", 40)
        assert images.inside == ["first giant"]
        await images.come("small", 10)
        await images.come("other small", 10)
        assert images.inside == ["first giant", "small", "other small"]
        await images.come("one too many", 1)  # more than is reserved, while a giant waits
        assert waiting(images.memory) == 3
        await images.go("small")
        assert images.inside == ["first giant", "other small", "one too many"]
        await images.go("first giant")
        assert images.inside == ["other small", "one too many", "second giant", "third giant"]
        for name in list(images.inside):
            await images.go(name)
        assert (held(images.memory), waiting(images.memory)) == (0, 0)

    asyncio.run(go())


def test_small_images_without_end_do_not_keep_a_giant_out() -> None:
    async def go() -> None:
        images = Images(memory(160))
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
        images = Images(memory(160))
        await images.come("inside", 100)
        await images.come("waiting", 100)
        await images.come("behind", 100)
        await images.cancel("waiting")
        assert (held(images.memory), waiting(images.memory)) == (100, 1)
        await images.cancel("inside")
        assert images.inside[-1] == "behind"
        await images.go("behind")
        assert (held(images.memory), waiting(images.memory)) == (0, 0)

    asyncio.run(go())


def test_memory_of_a_cancelled_request_is_held_until_its_decoding_ends() -> None:
    async def go() -> None:
        given = memory(160)
        begun, end = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def decode(share: Share) -> None:
            with share.used():
                loop.call_soon_threadsafe(begun.set)
                asyncio.run_coroutine_threadsafe(end.wait(), loop).result()

        async def request() -> None:
            async with given.share(100, 100) as share:
                await asyncio.to_thread(decode, share)

        task = asyncio.create_task(request())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held(given) == 100
        end.set()
        while held(given):
            await asyncio.sleep(0.001)

    asyncio.run(go())


def test_an_image_of_a_cancelled_request_is_not_decoded() -> None:
    async def go() -> None:
        given = memory(160)
        async with given.share(10, 10) as share:
            pass
        with pytest.raises(RuntimeError, match="cancelled"), share.used():
            pytest.fail("decoded")
        assert held(given) == 0

    asyncio.run(go())


def test_waiting_has_an_end() -> None:
    async def go() -> None:
        given = memory(160, seconds=0.05)
        async with given.share(100, 100):
            with pytest.raises(Problem, match="memory") as caught:
                async with given.share(100, 100):
                    pytest.fail("got memory that is taken")
            assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
        assert (held(given), waiting(given)) == (0, 0)

    asyncio.run(go())


def test_an_image_that_fits_never_is_refused_and_one_that_may_not_fit_goes_alone() -> None:
    async def go() -> None:
        given = memory(160 * MIB)
        with pytest.raises(ImageError, match="141 MiB, .* 140 MiB") as caught:
            async with given.share(141 * MIB, 141 * MIB):
                pytest.fail("cannot be")
        assert caught.value.kind == "size"
        async with given.share(0, 500 * MIB) as share:
            assert share.amount == given.largest == 140 * MIB

    asyncio.run(go())


@settings(max_examples=examples(200))
@given(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 6), st.booleans()), max_size=30))
def test_no_more_is_held_than_there_is_and_all_get_their_turn(images: list[tuple[int, int, bool]]) -> None:
    """Let images of any size come, stay for some rounds, and be cancelled or not."""

    async def go() -> None:
        given, most, served = memory(160), 0, 0

        @contextlib.asynccontextmanager
        async def watched(amount: int) -> AsyncIterator[None]:
            nonlocal most, served
            async with given.share(amount, amount):
                most, served = max(most, int(held(given))), served + 1
                yield

        async def one(amount: int, rounds: int) -> None:
            async with watched(amount):
                for _ in range(rounds):
                    await asyncio.sleep(0)

        tasks = [asyncio.create_task(one(amount, rounds)) for amount, rounds, _ in images]
        await asyncio.sleep(0)
        for task, (_, _, cancelled) in zip(tasks, images, strict=True):
            if cancelled:
                task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert most <= 160
        assert all(error is None or isinstance(error, asyncio.CancelledError) for error in ended)
        assert served >= sum(not cancelled for _, _, cancelled in images)
        assert (held(given), waiting(given)) == (0, 0)

    asyncio.run(go())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    """Return a root folder in which a test can write /proc/self/cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    yield tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_least_limit_above_a_process_counts(machine: Path) -> None:
    assert not memory_limit(machine)[1]
    write(machine / "proc/self/cgroup", "0::/pods/mine/leaf\n")
    write(machine / "sys/fs/cgroup/pods/mine/leaf/memory.max", "max\n")
    write(machine / "sys/fs/cgroup/pods/mine/memory.max", f"{64 * MIB}\n")
    write(machine / "sys/fs/cgroup/pods/memory.max", f"{128 * MIB}\n")
    assert memory_limit(machine) == (64 * MIB, True)


def test_the_limit_of_version_1_and_of_a_container_that_sees_its_own_root(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "11:cpu,cpuacct:/docker/0a\n5:memory:/docker/0a\n0::/x\n")
    write(machine / "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{96 * MIB}\n")
    assert memory_limit(machine) == (96 * MIB, True)
    write(machine / "sys/fs/cgroup/memory/docker/0a/memory.limit_in_bytes", f"{32 * MIB}\n")
    assert memory_limit(machine) == (32 * MIB, True)
    write(machine / "sys/fs/cgroup/memory/docker/0a/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit(machine) == (96 * MIB, True)


def test_images_get_what_the_limit_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = (64 * GIB, True)
    monkeypatch.setattr(sizing, "memory_limit", lambda: limit)
    assert bodies_limit(10 * MIB) == 320 * MIB
    left = 64 * GIB - resident("self") - 2 * 320 * MIB - 8 * GIB
    assert decode_memory(Settings()) == pytest.approx(left, abs=32 * MIB)
    limit = (64 * GIB, False)
    assert decode_memory(Settings()) == 32 * GIB
    limit = (128 * MIB, True)
    assert decode_memory(Settings()) == 64 * MIB
    assert decode_memory(Settings(decode_memory=5)) == 5


def test_a_share_stays_for_another_try_if_the_process_died_and_ends_with_its_request() -> None:
    async def go() -> None:
        memory_ = memory(160)
        async with memory_.share(100, 100) as share:
            with pytest.raises(DeathError), share.used():
                raise DeathError(-9)
            assert held(memory_) == 100
            with share.used():
                assert held(memory_) == 100
            assert held(memory_) == 0
        async with memory_.share(100, 100) as share:
            with pytest.raises(DeathError), share.used():
                raise DeathError(-9)
        assert held(memory_) == 0
        with contextlib.ExitStack() as using:
            async with memory_.share(100, 100) as share:
                using.enter_context(share.used())
            assert held(memory_) == 100
            with pytest.raises(DeathError), using:
                raise DeathError(-9)
        assert held(memory_) == 0

    asyncio.run(go())
