"""The memory that images may take while they are decoded: each waits for its share, and no giant ends the server.

Small images have an eighth for themselves, so that they pass while giants wait; while a giant waits they take no more
than that, so that its turn comes. Within each of the two kinds it is first come, first served.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Literal

from sar_infer.errors import ImageError
from sar_infer.server.metrics import Metrics
from sar_infer.server.problems import Problem

_RESERVED = 8
"""This part of the memory is for small images alone; one of them takes half of it at most."""


class DecodeMemory:
    """Bytes for images that are being decoded, handed out in turn.

    Args:
        total: All bytes.
        seconds: That an image waits for its share at most.
        metrics: Shows the bytes held and the images that wait.

    Attributes:
        total: All bytes.
        largest: Bytes that one image can have.
    """

    def __init__(self, total: int, seconds: float, metrics: Metrics) -> None:
        self.total = total
        self.largest = total - total // _RESERVED
        self._seconds = seconds
        self._metrics = metrics
        self._lock = threading.Lock()
        self._waiting: dict[bool, deque[Share]] = {True: deque(), False: deque()}
        self._held = {True: 0, False: 0}
        metrics.decode_memory.set(total)

    @contextlib.asynccontextmanager
    async def share(self, least: int, most: int) -> AsyncIterator[Share]:
        """Wait for memory, and hold it until the block ends and whatever is decoded in it has ended too.

        Args:
            least: Bytes that the image is known to take.
            most: Bytes that it takes at worst; of more than ``largest`` only that is held.

        Raises:
            ImageError: it takes more than ``largest``.
            Problem: ``overloaded``, where others have had the memory for too long.
        """
        if least > self.largest:
            raise ImageError(
                f"decoding it takes {least / 2**20:.0f} MiB, more than the {self.largest / 2**20:.0f} MiB that this "
                "server has for an image; scale it down first",
                "size",
            )
        amount = min(most, self.largest)
        share = Share(self, amount, amount <= self.total // _RESERVED // 2, asyncio.get_running_loop())
        with self._lock:
            self._waiting[share.small].append(share)
            self._grant()
            if share.state == "waiting":
                share.granted = asyncio.Event()
        try:
            if share.granted:
                await self._wait(share.granted)
            yield share
        finally:
            self._drop(share)

    async def _wait(self, granted: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await granted.wait()
        except TimeoutError:
            raise Problem("overloaded", "other images take all memory for decoding; try again", self._seconds) from None

    def begin(self, share: Share) -> None:
        """See ``Share.used``."""
        with self._lock:
            if share.state != "granted":
                raise RuntimeError("the request has gone")
            share.state = "used"

    def end(self, share: Share) -> None:
        """See ``Share.used``."""
        with self._lock:
            self._free(share)

    def _drop(self, share: Share) -> None:
        """Give back what is not being used, or forget who waits."""
        with self._lock:
            if share.state == "granted":
                self._free(share)
            elif share.state == "waiting":
                share.state = "over"
                self._waiting[share.small].remove(share)
                self._grant()

    def _free(self, share: Share) -> None:
        share.state = "over"
        self._held[share.small] -= share.amount
        self._grant()

    def _grant(self) -> None:
        """Hand out what is there to those whose turn it is."""
        for waiting in self._waiting.values():
            while waiting and self._fits(waiting[0]):
                share = waiting.popleft()
                share.state = "granted"
                self._held[share.small] += share.amount
                share.wake()
        self._metrics.decode_held.set(sum(self._held.values()))
        self._metrics.decode_waiting.set(sum(map(len, self._waiting.values())))

    def _fits(self, share: Share) -> bool:
        reserved = self.total // _RESERVED
        if not share.small:
            return self._held[False] + max(self._held[True], reserved) + share.amount <= self.total
        if self._waiting[False] and self._held[True] + share.amount > reserved:
            return False
        return self._held[False] + self._held[True] + share.amount <= self.total


class Share:
    """The memory of one image; see ``DecodeMemory.share``.

    Attributes:
        amount: Bytes.
        small: It may use what is reserved.
        state: ``over`` when the bytes are someone else's; changed under the memory's lock.
        granted: To wait for, where the bytes were not there at once.
    """

    def __init__(self, memory: DecodeMemory, amount: int, small: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.amount = amount
        self.small = small
        self.state: Literal["waiting", "granted", "used", "over"] = "waiting"
        self.granted: asyncio.Event | None = None
        self._memory = memory
        self._loop = loop

    def wake(self) -> None:
        """Tell whoever waits, from any thread."""
        if self.granted:
            self._loop.call_soon_threadsafe(self.granted.set)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Decode in this block, in any thread: the bytes are given back when it ends, and not before.

        Raises:
            RuntimeError: the share was given up meanwhile, so nobody waits for the image any more.
        """
        self._memory.begin(self)
        try:
            yield
        finally:
            self._memory.end(self)
