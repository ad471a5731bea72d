"""``kill -9`` at random moments of a process that edits a bank file: the file is always the old bank or the new one.

    python -m benchmarks.edit_kill [--kills 200] [--seconds 600] [--rows 1000] [--dim 512] [--seed 0]

A child opens a bank file as ``sar-bank`` does, makes the next edit (classes added, renamed, given a threshold, removed,
a rollback, in turn), saves it, and reports that; it is killed after a random time. Then the whole file must verify,
hold exactly what the first k edits give, with k steps of history, where k is the number reported or one more; rolling
it back to the beginning must give the bank it began as; nobody may hold its lock; and who takes that finds no trace of
what was cut off. The next child goes on from there. Ends with status 1 where any of this does not hold.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a process with threads should not fork

import numpy as np
import numpy.typing as npt

from benchmarks.kills import Kills, killed_child
from sar_infer.bank import ClassBank, ClassInfo, add, amend, remove, rename, rollback
from sar_infer.storage.files import owned

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
    rows = {"type": int, "default": 1000, "help": "classes at the beginning"}
    kills = Kills(__doc__, rows=rows, dim={"type": int, "default": 512})
    first = beginning(kills.given.rows, kills.given.dim)
    with tempfile.TemporaryDirectory() as folder:
        file, expected = Path(folder) / "bank.safetensors", first
        first.save(file)
        span = timed_edit(file)
        for seconds in kills.moments(0, 4 * span):
            reported = len(killed_child(partial(edit_for_ever, file), seconds))
            kills.counts["edits confirmed"] += reported
            kills.counts["killed before the new file took its place"] += any(file.parent.glob(".bank*.????????"))
            for _ in range(reported):
                expected = edited(expected)
            with kills.looking():
                with owned(file):
                    bank = ClassBank.verify(file)
                if len(bank.history) == len(expected.history) + 1:
                    kills.counts["stored, killed before it was confirmed"] += 1
                    expected = edited(expected)
                kills.faults += faults(bank, expected, first)
                kills.faults += [f"left behind: {entry.name}" for entry in file.parent.glob(".bank*")]
    kills.tell()


def timed_edit(file: Path) -> float:
    """Seconds that one edit takes here."""
    start = time.perf_counter()
    edited(ClassBank.verify(file)).save(file.with_name("trial"))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
