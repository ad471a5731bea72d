"""``kill -9`` at random moments of a process that edits a bank file: the file is always the old bank or the new one.

    python benchmarks/edit_kill.py [--kills 200] [--seconds 600] [--rows 1000] [--dim 512] [--seed 0]

A child opens a bank file as ``sar-bank`` does, makes the next edit (classes added, renamed, given a threshold, removed,
a rollback, in turn), saves it, and reports that; it is killed after a random time. Then the whole file must verify,
hold exactly what the first k edits give, with k steps of history, where k is the number reported or one more; rolling
it back to the beginning must give the bank it began as; nobody may hold its lock; and who takes that finds no trace of
what was cut off. The next child goes on from there. Ends with status 1 where any of this does not hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a process with threads should not fork

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank, ClassInfo, add, amend, remove, rename, rollback
from sar_infer.files import owned

Content = tuple[tuple[str, ...], bytes, dict[str, ClassInfo]]


def unit_rows(count: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """Rows (count, dim) of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    result: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def beginning(rows: int, dim: int) -> ClassBank:
    """The bank before any edit."""
    return ClassBank(tuple(f"class {number}" for number in range(rows)), unit_rows(rows, dim, 0), "e" * 64)


def edited(bank: ClassBank) -> ClassBank:
    """The bank after its next edit, which depends on nothing but its number."""
    number = len(bank.history)
    names = [f"added {number} {which}" for which in range(20)]
    kind = number % 6
    if kind in (0, 3):
        return add(bank, names, unit_rows(len(names), bank.embeddings.shape[1], number + 1))
    if kind == 1:
        return rename(bank, bank.names[number % len(bank.names)], f"renamed {number}")
    if kind == 2:
        return amend(bank, {bank.names[-1]: ClassInfo(threshold=0.5, aliases=(f"alias {number}",))})
    if kind == 4:
        return remove(bank, [bank.names[0], *bank.names[-10:]])
    return rollback(bank, number - 1)


def content(bank: ClassBank) -> Content:
    """All that an edit changes but times."""
    info = {name: dataclasses.replace(item, added=None) for name, item in bank.info.items()}
    return tuple(bank.names), bank.embeddings.tobytes(), info


def edit_for_ever(file: Path, confirmed: int) -> None:
    """The child: one byte down the pipe for each edit that is safe."""
    while True:
        with owned(file):
            edited(ClassBank.verify(file)).save(file)
        os.write(confirmed, b".")


def killed_child(file: Path, seconds: float) -> int:
    """How many edits a child reported before it was killed; the time counts from its birth."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            edit_for_ever(file, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(ours, "rb") as pipe:
        reported = len(pipe.read())
    if not os.WIFSIGNALED(status):
        sys.exit("the child ended by itself; its message stands above")
    return reported


def faults(bank: ClassBank, expected: ClassBank, first: ClassBank) -> Iterator[str]:
    """What is wrong with a bank that was read back."""
    if [step.action for step in bank.history] != [step.action for step in expected.history]:
        yield "its history is not that of the edits"
    if content(bank) != content(expected):
        yield "names, rows or info are not what the edits give"
    if len(bank.history) <= 60 and content(rollback(bank, 0)) != content(first):  # later steps cannot all be undone
        yield "rolling back does not give the beginning"


def main() -> None:
    """Print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600, help="stop after that, with fewer kills")
    parser.add_argument("--rows", type=int, default=1000, help="classes at the beginning")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, first = random.Random(given.seed), beginning(given.rows, given.dim)
    counts: Counter[str] = Counter()
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file, expected = Path(folder) / "bank.safetensors", first
        first.save(file)
        started = time.perf_counter()
        edited(ClassBank.verify(file)).save(Path(folder) / "trial")
        span = time.perf_counter() - started
        while counts["kills"] < given.kills and time.perf_counter() - started < given.seconds and not broken:
            counts["kills"] += 1
            reported = killed_child(file, chance.uniform(0, 4 * span))
            counts["edits confirmed"] += reported
            counts["killed before the new file took its place"] += any(Path(folder).glob(".bank*"))
            for _ in range(reported):
                expected = edited(expected)
            try:
                with owned(file):
                    bank = ClassBank.verify(file)
                if len(bank.history) == len(expected.history) + 1:
                    counts["stored, killed before it was confirmed"] += 1
                    expected = edited(expected)
                broken += faults(bank, expected, first)
                broken += [f"left behind: {entry.name}" for entry in Path(folder).glob(".bank*")]
            except Exception as error:
                broken.append(f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - started
    table = {**counts, "broken or lost": len(broken)}
    for what, count in table.items():
        print(f"{what:<42} {count:>6}")
    print(json.dumps({**vars(given), **table, "faults": broken, "seconds": round(seconds, 1)}))
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
