"""Progress of long work, as one line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

ProgressCallback = Callable[[str], None]
EVERY = 1.0
"""Seconds between two lines; shorter work prints none."""


def counter(tell: ProgressCallback, line: str, total: int) -> Callable[[int], None]:
    """Return a function to be called with the number done so far, and with ``total`` at the end.

    Args:
        tell: gets lines such as ``encoding 640/5,640 train photos, about 34 s left``.
        line: with ``{}`` for the numbers, such as ``encoding {} train photos``.
        total: how many there are.
    """
    began = last = time.monotonic()

    def count(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY or (done == total and last > began):
            last = now
            left = (now - began) / done * (total - done)
            tell(f"{line.format(f'{done:,}/{total:,}')}, about {left:.0f} s left")

    return count
