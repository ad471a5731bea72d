"""Admission: how much work the server takes on at once. Every answer 429 is made here, by ``overloaded``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from sar_infer.server.metrics import Metrics
from sar_infer.server.problems import Problem

_MOST_CHANGES = 64


def overloaded(reason: str, retry_after: float) -> Problem:
    """Return the problem of a request that the server is too busy for: status 429.

    Args:
        reason: What there is too much of.
        retry_after: Seconds after which a retry makes sense.
    """
    return Problem("overloaded", f"{reason}; try again", retry_after)


class Quota:
    """Counts work of one kind, refuses what would exceed a limit, and knows how long work takes.

    If nothing is under way, the next piece of work is let in however large it is.

    Args:
        most: Units at once.
        reason: As in ``overloaded``.
    """

    def __init__(self, most: int, reason: str) -> None:
        self.held = 0
        self._most = most
        self._reason = reason
        self._seconds_each = 0.05

    @property
    def full(self) -> bool:
        """Tell whether no further unit is let in."""
        return self.held >= self._most

    @contextlib.contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Count units of work until the block ends, and time them.

        Raises:
            Problem: ``overloaded``.
        """
        if count and self.held and self.held + count > self._most:
            raise self.refusal()
        self.held += count
        start = time.perf_counter()
        try:
            yield
        finally:
            if count:
                each = (time.perf_counter() - start) / self.held
                self._seconds_each += 0.1 * (each - self._seconds_each)
            self.held -= count

    def refusal(self) -> Problem:
        """Return the problem of work that is not let in; clients retry when what is held is done."""
        return overloaded(self._reason, self.held * self._seconds_each)


class Admission:
    """The work that a server has taken on, and the limits of it.

    Args:
        most_images: Images inside at once: being decoded, waiting or running.
        most_body_bytes: Bytes of request bodies in memory, above which no more is read.
        metrics: Shows how many images are inside.

    Attributes:
        images: Images inside.
        changes: Changes of the bank that wait for their turn.
        body_bytes: Bytes of request bodies that are in memory; ``http.middleware`` counts them.
    """

    def __init__(self, most_images: int, most_body_bytes: int, metrics: Metrics) -> None:
        self.images = Quota(most_images, "too many images are waiting")
        self.changes = Quota(_MOST_CHANGES, "too many changes are waiting")
        self.body_bytes = 0
        self.most_body_bytes = most_body_bytes
        metrics.inside.set_function(lambda: self.images.held)

    def check_body_bytes(self) -> None:
        """Raise ``overloaded`` if request bodies take too much memory."""
        if self.body_bytes > self.most_body_bytes:
            raise self.images.refusal()
