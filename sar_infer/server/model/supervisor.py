"""The states of worker processes, and the rules by which they are replaced; without processes, threads or clocks.

| a worker is | and | becomes |
| --- | --- | --- |
| starting | is ready | idle |
| starting | does not start | gone |
| idle | takes a batch | busy |
| busy | answers | idle |
| idle or busy | dies, or is ended | gone |

As many are started as are missing, at once, unless the breaker is open. It opens if ten die in a row, without an answer
between, or if none is left and none can be started. While it is open all work is refused and nothing is started; after
a pause one worker has to show that it starts, and one more death opens it again.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

W = TypeVar("W")
MOST_DEATHS = 10
PAUSE = 10.0
"""Seconds that the breaker stays open, and between attempts to start another worker while others work."""


class Supervisor(Generic[W]):
    """Keeps a number of workers. Events are reported to it, with the time if it matters, under a lock.

    Args:
        count: Workers to keep.

    Attributes:
        ready: What the workers that are ready do, in the order in which they became ready.
        starting: How many are being started.
        deaths: How many died in a row.
        fault: Why the breaker is open; None while it is closed.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.ready: dict[W, Literal["idle", "busy"]] = {}
        self.starting = 0
        self.deaths = 0
        self.fault: str | None = None
        self._resumes = float("-inf")

    def start(self, now: float) -> int:
        """Return how many workers to start now; from here on they count as starting."""
        if now < self._resumes:
            return 0
        missing = self.count - len(self.ready) - self.starting
        if self.fault is not None:
            self.deaths = MOST_DEATHS - 1
            if self.ready:
                self.fault = None
            else:
                missing = min(missing, 1 - self.starting)
        missing = max(0, missing)
        self.starting += missing
        return missing

    def started(self, worker: W, now: float) -> None:
        """Count a worker as ready."""
        self.starting -= 1
        self.ready[worker] = "idle"
        if now >= self._resumes:
            self.fault = None

    def not_started(self, reason: str, now: float, *, died: bool) -> None:
        """Count a worker that did not start: it died, or it cannot be started for a reason that lasts."""
        self.starting -= 1
        if self.ready and not died:
            self._resumes = now + PAUSE
            return
        self.deaths += 1
        if self.deaths >= MOST_DEATHS or not died:
            self._open(f"no worker process starts: {reason}", now)

    def take(self) -> W | None:
        """Return an idle worker, which is busy from here on; None if all are busy, or if the breaker is open."""
        idle = (worker for worker, ready in self.ready.items() if ready == "idle")
        worker = None if self.fault is not None else next(idle, None)
        if worker is not None:
            self.ready[worker] = "busy"
        return worker

    def answered(self, worker: W) -> None:
        """Count an answer, after which the worker is idle."""
        self.deaths = 0
        self.ready[worker] = "idle"

    def gone(self, worker: W, reason: str, now: float, *, at_work: bool) -> None:
        """Forget a worker that has ended; one that died at its work is a death in a row."""
        del self.ready[worker]
        self.deaths += at_work
        if self.deaths >= MOST_DEATHS:
            self._open(f"{self.deaths} worker processes died one after the other (the last: {reason})", now)

    def _open(self, fault: str, now: float) -> None:
        self.fault, self._resumes = fault, now + PAUSE
