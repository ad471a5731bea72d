"""Common code of the commands that end a process with ``kill -9`` at random moments and then look at what it left."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank


class Kills:
    """Rounds that each kill one process, with what was counted and what was found wrong.

    Args:
        description: What ``--help`` begins with.
        options: More options, by name, each as ``argparse`` takes it.
    """

    def __init__(self, description: str | None, **options: dict[str, Any]) -> None:
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--kills", type=int, default=200)
        parser.add_argument("--seconds", type=float, default=600, help="stop after that, with fewer kills")
        parser.add_argument("--seed", type=int, default=0)
        for name, option in options.items():
            parser.add_argument(f"--{name}", **option)
        self.options = parser.parse_args()
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._chance = random.Random(self.options.seed)
        self._started = time.perf_counter()

    def moments(self, first: float, last: float) -> Iterator[float]:
        """Random seconds until each kill, as long as kills and time are left and nothing is wrong."""
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
        seconds = round(self._seconds(), 1)
        table = {**self.counts, "broken or lost": len(self.faults)}
        for label, count in table.items():
            print(f"{label:<42} {count:>6}")
        print(json.dumps({**vars(self.options), **table, "faults": self.faults, "seconds": seconds}, default=str))
        sys.exit(bool(self.faults))

    def _seconds(self) -> float:
        return time.perf_counter() - self._started


def killed_child(work: Callable[[int], None], seconds: float) -> bytes:
    """Return what a forked process reported before it was killed; see ``killed_children``."""
    return killed_children([work], seconds)[0]


def killed_children(works: Sequence[Callable[[int], None]], seconds: float) -> list[bytes]:
    """Return what forked processes reported before they were killed; the time counts from the birth of the last.

    Args:
        works: Each does not end, and writes to the pipe that it is given for each thing that is safe.
        seconds: Until they are killed.
    """
    children: list[tuple[int, int]] = []
    for work in works:
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            try:
                work(theirs)
            finally:
                os._exit(1)
        os.close(theirs)
        children.append((child, ours))
    time.sleep(seconds)
    reported = []
    for child, _ in children:
        os.kill(child, signal.SIGKILL)
    for child, ours in children:
        _, status = os.waitpid(child, 0)
        with os.fdopen(ours, "rb") as pipe:
            reported.append(pipe.read())
        if not os.WIFSIGNALED(status):
            sys.exit("a child ended by itself; its message stands above")
    return reported


def added(number: int) -> str:
    """The name of a class that is added, in turn."""
    return f"added {number:06}"


def stored_bank(file: Path, base: ClassBank) -> ClassBank:
    """Return the bank in the file; before the first class was added there is none, and the base stands."""
    from sar_infer.bank import ClassBank

    return ClassBank.load(file, base=base) if file.exists() else base


def not_the_first(bank: ClassBank, base: ClassBank, confirmed: int) -> Iterator[str]:
    """Return the faults of a bank, which should have the base's classes and of those added the first k, in order.

    k is ``confirmed`` or one more, stored before it could be confirmed.
    """
    count = len(bank.names) - len(base.names)
    if tuple(bank.names) != (*base.names, *map(added, range(count))):
        yield f"names are not the first {count}"
    if not confirmed <= count <= confirmed + 1:
        yield f"{confirmed} were confirmed, {count} are stored"
