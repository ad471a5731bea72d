"""The states of worker processes, and the rules by which they are replaced; without processes, threads or clocks.

| a worker is | and | becomes |
| --- | --- | --- |
| starting | is ready | idle |
| starting | does not start | gone |
| idle | takes a batch | busy |
| busy | answers | idle |
| idle or busy | dies, or is ended | gone |

As many are started as are missing, at once, or some time after one did not start. If then none is left, all work is
refused until one is ready.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

W = TypeVar("W")
PAUSE = 5.0
"""Seconds after a worker did not start, before others are started."""


class Supervisor(Generic[W]):
    """Keeps a number of workers. Events are reported to it, with the time if it matters, under a lock.

    Args:
        count: Workers to keep.

    Attributes:
        ready: What the workers that are ready do, in the order in which they became ready.
        starting: How many are being started.
        fault: Why there is no worker; None while there is one, or may be soon.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.ready: dict[W, Literal["idle", "busy"]] = {}
        self.starting = 0
        self.fault: str | None = None
        self._resumes = float("-inf")

    def start(self, now: float) -> int:
        """Return how many workers to start now; from here on they count as starting."""
        if now < self._resumes and (self.ready or self.starting or self.fault is not None):
            return 0
        missing = self.count - len(self.ready) - self.starting
        self.starting += missing
        return missing

    def started(self, worker: W) -> None:
        """Count a worker as ready."""
        self.starting -= 1
        self.ready[worker] = "idle"
        self.fault = None

    def not_started(self, reason: str, now: float) -> None:
        """Count a worker that did not start."""
        self.starting -= 1
        self._resumes = now + PAUSE
        if not self.ready and not self.starting:
            self.fault = f"no worker process starts: {reason}"

    def take(self) -> W | None:
        """Return an idle worker, which is busy from here on; None if all are busy."""
        worker = next((worker for worker, state in self.ready.items() if state == "idle"), None)
        if worker is not None:
            self.ready[worker] = "busy"
        return worker

    def answered(self, worker: W) -> None:
        """Count an answer, after which the worker is idle."""
        self.ready[worker] = "idle"

    def gone(self, worker: W) -> None:
        """Forget a worker that has ended."""
        del self.ready[worker]
