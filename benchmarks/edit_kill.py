"""``kill -9`` at random moments of two servers and a command that change one bank file: nothing confirmed is lost.

    python -m benchmarks.edit_kill [--kills 200] [--seconds 600] [--rows 1000] [--dim 512] [--seed 0]

Two children add classes as ``sar-serve`` does, a third adds, renames, gives thresholds and removes classes as
``sar-bank`` does; each reports what was confirmed, and how many steps it has seen. All three are killed after a random
time, the next three go on from there. Then the file must verify and hold all that was confirmed, and of each child at
most one change more; no child may have seen a step that is not there; its steps must give what it holds, and rolling it
back to the beginning the bundle's bank; nobody may hold its lock, and who takes that finds no trace of what was cut
off. Ends with status 1 where any of this does not hold.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a process with threads should not fork

import numpy as np

from benchmarks.bank_kill import Encoder, example_bundle
from benchmarks.kills import Kills, killed_children
from sar_infer.bank import ClassBank, ClassInfo, add, amend, remove, rename, rollback
from sar_infer.bank.log import replay
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import Bundle
from sar_infer.server.bank.store import BankStore
from sar_infer.storage.files import owned

_KINDS = 4
"""Changes that the command makes of each of its classes: added, renamed, given a threshold, removed."""


def serve_for_ever(file: Path, bundle: Bundle, who: str, confirmed: int) -> None:
    """Add classes as a server does; report each, with the number of steps that it sees then."""
    bank_file.WAIT = 60
    store = BankStore.open(file, bundle, Encoder(bundle.manifest.embed_dim))
    number = sum(name.startswith(who) for name in store.bank.names)
    while True:
        store.put(f"{who} {number}")
        number += 1
        os.write(confirmed, f"{number} {len(store.look().bank.history)}\n".encode())


def edit_for_ever(file: Path, bundle: Bundle, confirmed: int) -> None:
    """Change classes as ``sar-bank`` does; report each change that is on the disk."""
    encode = Encoder(bundle.manifest.embed_dim)
    while True:
        with owned(file, 60):
            bank = bank_file.read(file, bundle) if file.exists() else bundle.bank
            done = commands(bank)
            commanded(bank, done, encode).save(file)
        os.write(confirmed, f"{done + 1} {len(bank.history) + 1}\n".encode())


def commands(bank: ClassBank) -> int:
    """Return how many changes the command has made."""
    return sum(step.by == "command" for step in bank.history)


def commanded(bank: ClassBank, done: int, encode: Encoder) -> ClassBank:
    """Return the bank after the command's next change."""
    name, kind = f"command {done // _KINDS}", done % _KINDS
    if kind == 0:
        return add(bank, [name], encode([(name,)]), by="command")
    if kind == 1:
        return rename(bank, name, f"renamed {done // _KINDS}", by="command")
    if kind == 2:
        return amend(bank, {f"renamed {done // _KINDS}": ClassInfo(threshold=0.5)}, by="command")
    return remove(bank, [f"renamed {done // _KINDS}"], by="command")


def faults(file: Path, bundle: Bundle, before: ClassBank, reports: list[list[list[int]]]) -> Iterator[str]:
    """Yield what is wrong with a file after a round.

    Args:
        file: The file.
        bundle: Its bundle.
        before: The bank at the beginning of the round.
        reports: Of each child, pairs of its number of changes and the steps it saw, in order.
    """
    encode = Encoder(bundle.manifest.embed_dim)
    with owned(file):
        bank = ClassBank.verify(file, base=bundle.bank) if file.exists() else bundle.bank
    counts = [sum(name.startswith(who) for name in bank.names) for who in ("first", "second")]
    earlier = [sum(name.startswith(who) for name in before.names) for who in ("first", "second")]
    for count, start, report in zip((*counts, commands(bank)), (*earlier, commands(before)), reports, strict=True):
        least = report[-1][0] if report else start
        if not least <= count <= least + 1:
            yield f"{least} changes of a child were confirmed, {count} are there"
    steps = len(bank.history)
    if any(pair[1] > steps for report in reports for pair in report):
        yield "a step was seen that is not there"
    if steps != sum(counts) + commands(bank):
        yield f"{steps} steps for {sum(counts) + commands(bank)} changes"
    added = [name for name in bank.names if name.startswith(("first", "second"))]
    if not np.array_equal(bank.rows_at([bank.index[name] for name in added]), encode([(name,) for name in added])):
        yield "rows are not the encoder's"
    if replay(bank.base, bank.log).content_digest != bank.content_digest:
        yield "its steps do not give what it holds"
    if not bank.log.begun and rollback(bank, 0).content_digest != bundle.bank.content_digest:
        yield "rolling back does not give the beginning"
    yield from (f"left behind: {entry.name}" for entry in file.parent.glob(".bank*"))


def main() -> None:
    """Print a table and JSON."""
    rows = {"type": int, "default": 1000, "help": "classes of the bundle"}
    kills = Kills(__doc__, rows=rows, dim={"type": int, "default": 512})
    bundle = example_bundle(kills.options.rows, kills.options.dim)
    with tempfile.TemporaryDirectory() as folder:
        file, bank = Path(folder) / "bank.safetensors", bundle.bank
        span = timed_edit(file.with_name("trial.safetensors"), bundle)
        children: list[Callable[[int], None]] = [
            partial(serve_for_ever, file, bundle, "first"),
            partial(serve_for_ever, file, bundle, "second"),
            partial(edit_for_ever, file, bundle),
        ]
        for seconds in kills.moments(0, 12 * span):
            outputs = killed_children(children, seconds)
            reports = [[[*map(int, line.split())] for line in data.decode().splitlines()] for data in outputs]
            kills.counts["changes confirmed"] += sum(map(len, reports))
            kills.counts["killed before the new file took its place"] += any(file.parent.glob(".bank*.????????"))
            with kills.looking():
                kills.faults += faults(file, bundle, bank, reports)
                bank = bank_file.read(file, bundle) if file.exists() else bundle.bank
    kills.tell()


def timed_edit(file: Path, bundle: Bundle) -> float:
    """Return the seconds that one change takes here."""
    start = time.perf_counter()
    commanded(bundle.bank, 0, Encoder(bundle.manifest.embed_dim)).save(file)
    bank_file.read(file, bundle)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
