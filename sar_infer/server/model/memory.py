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


class Share:
    """The memory of one image; see ``DecodeMemory.take``.

    Attributes:
        amount: Bytes.
        small: It may use the reserved part.
        granted: Resolved when the bytes are granted.
    """

    def __init__(self, memory: DecodeMemory, amount: int, small: bool) -> None:
        self.amount = amount
        self.small = small
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._memory = memory

    def free(self) -> None:
        """Give the bytes back, once."""
        self._memory.free(self)


class DecodeMemory:
    """Hands out bytes, in turn, to images that are being decoded; called from one event loop.

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
        self._waiting: dict[bool, deque[Share]] = {True: deque(), False: deque()}
        self._held = {True: 0, False: 0}
        metrics.decode_memory.set(total)
        metrics.decode_held.set_function(lambda: sum(self._held.values()))
        metrics.decode_waiting.set_function(lambda: sum(map(len, self._waiting.values())))

    async def take(self, least: int, most: int) -> Share:
        """Wait for memory and return it; whoever gets it must free it when the image has been decoded.

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
        share = Share(self, amount, amount <= self.total // _RESERVED // 2)
        self._waiting[share.small].append(share)
        self._grant()
        if not share.granted.done():
            await self._wait(share)
        return share

    def free(self, share: Share) -> None:
        """Take back a share that was granted."""
        self._held[share.small] -= share.amount
        self._grant()

    async def _wait(self, share: Share) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await asyncio.shield(share.granted)
        except BaseException as error:  # perhaps just when it was granted
            if share.granted.done():
                self.free(share)
            else:
                self._waiting[share.small].remove(share)
                self._grant()
            if isinstance(error, TimeoutError):
                raise overloaded("other images take all memory for decoding", self._seconds) from None
            raise

    def _grant(self) -> None:
        """Grant shares to the first in line, as far as the memory goes."""
        for waiting in self._waiting.values():
            while waiting and self._fits(waiting[0]):
                share = waiting.popleft()
                self._held[share.small] += share.amount
                share.granted.set_result(None)

    def _fits(self, share: Share) -> bool:
        reserved = self.total // _RESERVED
        if not share.small:
            return self._held[False] + max(self._held[True], reserved) + share.amount <= self.total
        if self._waiting[False] and self._held[True] + share.amount > reserved:
            return False
        return self._held[False] + self._held[True] + share.amount <= self.total
