"""The memory that images take while they are decoded: each waits for its share, so that none exhausts the process.

An eighth is reserved for small images, so that they pass while large ones wait. While a large one waits, small ones get
no more than that eighth, so that its turn comes. Each of the two kinds is served first come, first served.
"""

from __future__ import annotations

import asyncio
from collections import deque

from sar_infer.errors import ImageError
from sar_infer.server.admission import overloaded
from sar_infer.server.metrics import Metrics

_RESERVED = 8
"""One part in so many is for small images alone; an image is small if it takes at most half of that part."""


class DecodeMemory:
    """Hands out bytes, in turn, to images that are being decoded; called from one event loop.

    Args:
        total: All bytes.
        seconds: How long an image waits for its bytes at most.
        metrics: Shows the bytes held and the images waiting.

    Attributes:
        total: All bytes.
        largest: Bytes that one image can have.
    """

    def __init__(self, total: int, seconds: float, metrics: Metrics) -> None:
        self.total = total
        self._reserved = total // _RESERVED
        self.largest = total - self._reserved
        self._seconds = seconds
        self._waiting: dict[bool, deque[tuple[int, asyncio.Future[None]]]] = {True: deque(), False: deque()}
        self._held = {True: 0, False: 0}
        metrics.decode_memory.set(total)
        metrics.decode_held.set_function(lambda: sum(self._held.values()))
        metrics.decode_waiting.set_function(lambda: sum(map(len, self._waiting.values())))

    async def take(self, least: int, most: int) -> int:
        """Wait for memory, and return how many bytes were granted; they must be freed when the image is decoded.

        Args:
            least: Bytes that the image takes at least.
            most: Bytes that it takes at worst; no more than ``largest`` are granted.

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
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[self._small(amount)]
        waiting.append((amount, granted))
        self._grant()
        if granted.done():
            return amount
        try:
            async with asyncio.timeout(self._seconds):
                await asyncio.shield(granted)
        except BaseException as error:  # perhaps just when it was granted
            if granted.done():
                self.free(amount)
            else:
                waiting.remove((amount, granted))
                self._grant()
            if isinstance(error, TimeoutError):
                raise overloaded("other images take all memory for decoding", self._seconds) from None
            raise
        return amount

    def free(self, amount: int) -> None:
        """Take back what was granted, in one piece."""
        self._held[self._small(amount)] -= amount
        self._grant()

    def _small(self, amount: int) -> bool:
        """Return whether an image may use the reserved part."""
        return amount <= self._reserved // 2

    def _grant(self) -> None:
        """Grant memory to the first in line, as far as it goes."""
        for small, waiting in self._waiting.items():
            while waiting and self._fits(waiting[0][0], small):
                amount, granted = waiting.popleft()
                self._held[small] += amount
                granted.set_result(None)

    def _fits(self, amount: int, small: bool) -> bool:
        if not small:
            return self._held[False] + max(self._held[True], self._reserved) + amount <= self.total
        if self._waiting[False] and self._held[True] + amount > self._reserved:
            return False
        return self._held[False] + self._held[True] + amount <= self.total
