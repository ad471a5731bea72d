"""Thousands of mutated bundles and banks, each opened and used in a process of its own kind: refused, or a fault.

    python -m benchmarks.hostile [--cases 1000] [--seed 1] [--kinds WORD] [--only NUMBER]

Every case copies a sound bundle (a tiny one that has all parts, or the shipped one), changes it (``tests/support/
mutations.py``), and uses it in a worker with limited memory: ``Classifier.classify`` in every precision, ``ClassBank.
load`` and ``verify``, ``sar-classify --info`` and most of ``sar-bank``. Sound outcomes: refused
in one line; the same answers as before; where digests were made to fit, other answers that are scores. A fault is
anything else: another exception, a crash, more seconds or memory than given. Ends with status 1 and what repeats each
fault.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import command

GIB = 2**30
SHIPPED_EVERY = 8
"""So many cases are about the shipped bundle, which takes longer to copy."""


@dataclass(frozen=True)
class Sources:
    """Sound bundles: the first is changed, the second lends files."""

    tiny: Path
    shipped: Path
    other: Path

    def of(self, number: int) -> Path:
        """Return the bundle that a case starts from."""
        return self.shipped if number % SHIPPED_EVERY == 0 else self.tiny


def kinds(word: str) -> list[str]:
    """Names of the mutations with this word in them."""
    from support import hostile_graphs, mutations  # noqa: F401 - registers them

    names = [name for name in mutations.MUTATIONS if word in name]
    return names or sys.exit(f"no kind of mutation has {word!r} in its name: {', '.join(mutations.MUTATIONS)}")


def case(number: int, seed: int, word: str, sources: Sources, folder: Path) -> tuple[str, str, bool]:
    """Make the mutated bundle of a case; its kind, what was done, and whether digests fit."""
    from support.mutations import MUTATIONS

    names = kinds(word)
    kind = names[number % len(names)]
    shutil.copytree(sources.of(number), folder)
    chance = random.Random(f"{seed} {number}")
    return kind, MUTATIONS[kind].change(folder, sources.other, chance), MUTATIONS[kind].sealed


def worker(pipe: Connection, seed: int, word: str, sources: Sources, memory: float) -> None:
    """Serve case numbers from a pipe until it is closed: first what is tried, then what came of it."""
    from support.verdicts import answers, bank_verdict, command_verdict, verdict

    from sar_infer.bank import ClassBank
    from sar_infer.bundle.manifest import BANK

    limit = int(memory * GIB)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    expected = {path: answers(path) for path in (sources.tiny, sources.shipped)}
    banks = [ClassBank.load(path / BANK) for path in (sources.tiny, sources.shipped, sources.other)]
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        source = sources.of(number)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            kind, change, sealed = case(number, seed, word, sources, folder)
            pipe.send((kind, change))
            verdicts = []
            try:
                verdicts.append(verdict(folder, expected[source], sealed))
                verdicts.append(bank_verdict(folder / BANK, banks, sealed))
                command_verdict(folder, source)
            except BaseException as error:  # whatever it is, it is a fault
                verdicts = [f"FAULT {type(error).__name__}: {error!s:.600}", traceback.format_exc()]
        pipe.send(verdicts)


@dataclass
class Record:
    """Outcomes of all cases."""

    outcomes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    faults: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Print a row for each kind."""
        rows = [
            (kind, ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())), f"{self.slowest[kind]:.2f}")
            for kind, counts in sorted(self.outcomes.items())
        ]
        print(command.markdown(("kind", "outcomes", "slowest, s"), rows))


class Tester:
    """A worker process, started anew whenever it dies or has to be ended."""

    def __init__(self, options: argparse.Namespace, sources: Sources, record: Record) -> None:
        self.options = options
        self.sources = sources
        self.record = record
        self._start()

    def run_all(self, numbers: range | list[int]) -> None:
        """Some cases, one after the other."""
        for number in numbers:
            self.run(number)

    def run(self, number: int) -> None:
        """One case."""
        start = time.monotonic()
        self.pipe.send(number)
        kind, change, outcome = "?", "?", ""
        try:
            kind, change = self._answer(self.options.seconds)
            verdicts = self._answer(self.options.seconds)
            outcome = verdicts[0]
            if outcome.startswith("FAULT") and self.options.only is not None:
                print(verdicts[1])
        except TimeoutError:
            outcome = f"FAULT no end within {self.options.seconds:.0f} s"
        except EOFError:
            self.process.join()
            outcome = f"FAULT the process died with {self.process.exitcode}"
        self.record.slowest[kind] = max(self.record.slowest[kind], time.monotonic() - start)
        self.record.outcomes[kind][outcome.split()[0]] += 1
        if outcome.startswith("FAULT"):
            self.record.faults.append(f"--seed {self.options.seed} --only {number}: {kind}: {change}: {outcome[6:]}")
            self.close()
            self._start()

    def close(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        arguments = (far, self.options.seed, self.options.kinds, self.sources, self.options.gib)
        self.process = context.Process(target=worker, args=arguments)
        self.process.start()
        far.close()
        self._answer(120)

    def _answer(self, seconds: float) -> tuple[str, ...]:
        if not self.pipe.poll(seconds):
            raise TimeoutError
        answer: tuple[str, ...] = self.pipe.recv()
        return answer


def main() -> None:
    """Try all, and tell."""
    options = command.options(
        __doc__,
        cases=1000,
        seed=1,
        kinds=("", "only those with the word in their name"),
        only=(int, "the number of one case, with the traceback of its fault"),
        seconds=(20.0, "that a case may take"),
        gib=(4.0, "of address space for a worker"),
        workers=2,
    )
    from support.rich_bundle import write_rich_bundle

    start, record = time.monotonic(), Record()
    numbers = range(options.cases) if options.only is None else [options.only]
    count = min(options.workers, len(numbers))
    with tempfile.TemporaryDirectory() as scratch:
        tiny = write_rich_bundle(Path(scratch) / "tiny")
        other = write_rich_bundle(Path(scratch) / "other", ["cat", "dog", "a horse"])
        sources = Sources(tiny, command.MINI, other)
        testers = [Tester(options, sources, record) for _ in range(count)]
        with ThreadPoolExecutor(count) as pool:
            shares = [numbers[index::count] for index in range(count)]
            for task in [pool.submit(tester.run_all, share) for tester, share in zip(testers, shares, strict=True)]:
                task.result()
        for tester in testers:
            tester.close()
    record.show()
    done = sum(counts.total() for counts in record.outcomes.values())
    print(f"{done} cases in {time.monotonic() - start:.0f} s, {len(record.faults)} faults")
    command.end(record.faults or ["not all cases were tried"] * (done < len(numbers)))


if __name__ == "__main__":
    main()
