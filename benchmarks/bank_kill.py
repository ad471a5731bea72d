"""``kill -9`` at random moments of two servers and a command that change one bank file: nothing confirmed is lost.

    python -m benchmarks.bank_kill [--kills 200] [--seconds 600] [--rows 1000] [--dim 512] [--seed 0]

Two children add classes as ``sar-serve`` does, a third adds, renames, gives thresholds and removes classes as
``sar-bank`` does; each reports what was confirmed, and how many steps it has seen. All three are killed after a random
time, the next three go on from there. Then the file must verify and hold all that was confirmed, and of each child at
most one change more; no child may have seen a step that is not there; its steps must give what it holds, and rolling it
back to the beginning the bundle's bank; nobody may hold its lock, and who takes that finds no trace of what was cut
off. Ends with status 1 where any of this does not hold.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a process with threads should not fork

import numpy as np
import numpy.typing as npt

from benchmarks.kills import Kills
from sar_infer.bank import ClassBank, ClassInfo, add, amend, remove, rename, rollback
from sar_infer.bank.log import replay
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.manifest import Manifest, Preprocess, Provenance, Quality
from sar_infer.server.bank.store import BankStore
from sar_infer.storage.files import owned

Floats = npt.NDArray[np.float32]
_KINDS = 4
"""Changes that the command makes of each of its classes: added, renamed, given a threshold, removed."""


class Encoder:
    """Encodes phrases as unit rows (N, D) that depend on nothing else."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, groups: Sequence[tuple[str, ...]]) -> Floats:
        """Return the rows of some classes, given as their phrases."""
        rows = np.empty((len(groups), self.dim), dtype=np.float32)
        for row, group in zip(rows, groups, strict=True):
            row[:] = np.random.default_rng(list("|".join(group).encode())).normal(size=self.dim)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def example_bundle(rows: int, dim: int) -> Bundle:
    """Return a bundle of which only the bank and a tokenizer exist."""
    mini = open_bundle()
    names = tuple(f"class {number}" for number in range(rows))
    manifest = Manifest(
        schema_version=1,
        backbone="none",
        weights_digest="0" * 64,
        method="none",
        template="{}",
        regularisers={},
        embed_dim=dim,
        logit_scale=1.0,
        preprocess=Preprocess(32, "shortest", "bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
        tokenizer=mini.manifest.tokenizer,
        self_test=mini.manifest.self_test,
        encoder_digest="e" * 64,
        files={},
        quality=Quality(dataset="none"),
        provenance=Provenance("2000-01-01T00:00:00Z", "none", {}),
    )
    bank = ClassBank.of(names, Encoder(dim)([(name,) for name in names]), "e" * 64).shared(Path("none"))
    return Bundle(mini.path, dataclasses.replace(manifest, digest="d" * 64), bank)


def serve_for_ever(file: Path, bundle: Bundle, who: str, confirmed: int) -> None:
    """Add classes as a server does; report each, with the number of steps that it sees then."""
    bank_file.WAIT = 60
    store = BankStore(file, bundle, Encoder(bundle.manifest.embed_dim))
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
        bank = ClassBank.load(file, base=bundle.bank) if file.exists() else bundle.bank
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
    kills = Kills(__doc__, rows=(1000, "classes of the bundle"), dim=512)
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
