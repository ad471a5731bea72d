"""Common code of the commands that end a process with ``kill -9`` at random moments and then look at what it left."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from benchmarks import command


class Kills:
    """Rounds that each kill processes, with counts and faults.

    Args:
        description: The beginning of ``--help``.
        options: More options, as `command.options` takes them.
    """

    def __init__(self, description: str | None, **options: Any) -> None:
        self.options = command.options(
            description, kills=200, seconds=(600.0, "stop after that, with fewer kills"), seed=0, **options
        )
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._chance = random.Random(self.options.seed)
        self._started = time.perf_counter()

    def moments(self, first: float, last: float) -> Iterator[float]:
        """Yield random seconds until each kill, as long as kills and time are left and nothing is wrong."""
        while self.counts["kills"] < self.options.kills and self._seconds() < self.options.seconds and not self.faults:
            self.counts["kills"] += 1
            yield self._chance.uniform(first, last)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Count a file that cannot be read as a fault."""
        try:
            yield
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")

    def tell(self) -> NoReturn:
        """Print a table and JSON; the exit code is 1 where anything was wrong."""
        counts = {**self.counts, "broken or lost": len(self.faults)}
        results = {**vars(self.options), **counts, "faults": self.faults, "seconds": round(self._seconds(), 1)}
        command.tell(command.markdown(("what", "times"), counts.items()), results)
        command.end(self.faults)

    def _seconds(self) -> float:
        return time.perf_counter() - self._started
