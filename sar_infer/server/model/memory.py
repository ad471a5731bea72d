"""The memory that images take while they are decoded: each waits for its share, so that none exhausts the process.

An eighth is reserved for small images, so that they pass while large ones wait. While a large one waits, small ones get
no more than that eighth, so that its turn comes. Each of the two kinds is served first come, first served.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.errors import ImageError
from sar_infer.processes.worker import DeathError
from sar_infer.server.admission import overloaded
from sar_infer.server.metrics import Metrics

Pixels = npt.NDArray[np.uint8] | Floats
"""Pixels (H, W, 3) of an image; or the encoder's own input (3, size, size), float32."""
Note = Callable[[bytes], None]
"""Is told the digest of an image's pixels (see ``prefetch.decode_photo``)."""
_RESERVED = 8
"""One part in so many is for small images alone; an image is small if it takes at most half of that part."""


class DecodeMemory:
    """Hands out bytes, in turn, to images that are being decoded.

    Args:
        total: All bytes.
        seconds: How long an image waits for its share at most.
        metrics: Shows the bytes held and the images waiting.

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
        """Wait for memory, and hold it until the block and any decoding in it have ended.

        Args:
            least: Bytes that the image takes at least.
            most: Bytes that it takes at worst; no more than ``largest`` are held.

        Raises:
            ImageError: it takes more than ``largest``.
            Problem: ``overloaded``, if others have held the memory for too long.
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
            raise overloaded("other images take all memory for decoding", self._seconds) from None

    def begin(self, share: Share) -> None:
        """Start to use a share; see ``Share.used``."""
        with self._lock:
            if share.state != "granted":
                raise RuntimeError("the request was cancelled")
            share.state = "used"

    def end(self, share: Share, again: bool) -> None:
        """End the use of a share, if need be for the time being; see ``Share.used``."""
        with self._lock:
            if again and not share.dropped:
                share.state = "granted"
            else:
                self._free(share)

    def _drop(self, share: Share) -> None:
        """Give back a share that is not in use, or stop waiting for it."""
        with self._lock:
            share.dropped = True
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
        """Grant shares to the first in line, as far as the memory goes."""
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
        small: It may use the reserved part.
        state: ``over`` once the bytes are given back; changed under the memory's lock.
        granted: Set when the bytes are granted; None if they were at once.
        dropped: Its request has ended.
    """

    def __init__(self, memory: DecodeMemory, amount: int, small: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.amount = amount
        self.small = small
        self.state: Literal["waiting", "granted", "used", "over"] = "waiting"
        self.granted: asyncio.Event | None = None
        self.dropped = False
        self._memory = memory
        self._loop = loop

    def wake(self) -> None:
        """Wake the request that waits, from any thread."""
        if self.granted:
            self._loop.call_soon_threadsafe(self.granted.set)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Decode in this block, in any thread; the bytes are given back when it ends, and not before.

        If the process that decoded has died, the share stays for another try, unless its request has ended.

        Raises:
            RuntimeError: the request was cancelled, so its share is gone.
        """
        self._memory.begin(self)
        died = False
        try:
            yield
        except DeathError:
            died = True
            raise
        finally:
            self._memory.end(self, again=died)


@dataclass(frozen=True)
class Encoded:
    """The bytes of an image, the memory to decode it in, and who wants to know the digest of its pixels."""

    data: bytes
    share: Share
    note: Note | None = None
