"""``kill -9`` at random moments of a process that adds classes: the bank file is always the old one or the new one.

    python benchmarks/bank_kill.py [--kills 200] [--seconds 600] [--rows 1000] [--dim 512] [--seed 0]

A child adds numbered names to a bank, one after another, and reports each that ``put`` has confirmed; it is killed
after a random time, from its first instruction on. Then the file must load, hold exactly the first k names with the
rows of their encoder, and k must be at least the number confirmed; and the folder must open again, without a trace of
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
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a process with threads should not fork

import numpy as np
import numpy.typing as npt

from sar_infer.artefact import Manifest, Passport, Preprocess, Provenance, TokenizerSpec
from sar_infer.bank import ClassBank
from sar_infer.bundle import Bundle
from sar_infer.server.bank.folder import BANK_FILE
from sar_infer.server.bank.store import BankStore

Floats = npt.NDArray[np.float32]


class Encoder:
    """Unit rows (N, D) that depend on the phrases alone."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def __call__(self, groups: Sequence[tuple[str, ...]]) -> Floats:
        """Rows of some classes, given as their phrases."""
        rows = np.empty((len(groups), self.dim), dtype=np.float32)
        for row, group in zip(rows, groups, strict=True):
            row[:] = np.random.default_rng(list("|".join(group).encode())).normal(size=self.dim)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def example_bundle(rows: int, dim: int) -> Bundle:
    """A bundle of which only the bank exists."""
    names = tuple(f"class {number}" for number in range(rows))
    manifest = Manifest(
        schema_version=1,
        min_reader=1,
        backbone="none",
        weights_digest="0" * 64,
        method="none",
        template="{}",
        regularisers={},
        embed_dim=dim,
        logit_scale=1.0,
        preprocess=Preprocess(32, "shortest", "bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
        tokenizer=TokenizerSpec("clip-bpe", context_length=24, n_prefix=5, suffix=".", end_token=1, max_name_tokens=18),
        encoder_digest="e" * 64,
        files={},
        passport=Passport(dataset="none"),
        provenance=Provenance("2000-01-01T00:00:00Z", "none", {}),
    )
    bank = ClassBank(names, Encoder(dim)([(name,) for name in names]), "e" * 64)
    return Bundle(Path(), dataclasses.replace(manifest, digest="d" * 64), bank)


def added_name(number: int) -> str:
    """What the child adds, in turn."""
    return f"added {number:06}"


def add_for_ever(folder: Path, bundle: Bundle, confirmed: int) -> None:
    """The child: one byte down the pipe for each name that is safe."""
    store = BankStore.open(folder, bundle, Encoder(bundle.manifest.embed_dim))
    os.write(confirmed, b"o")
    for number in range(len(store.bank.names) - len(bundle.bank.names), 10**6):
        store.put(added_name(number))
        os.write(confirmed, b".")


def killed_child(folder: Path, bundle: Bundle, seconds: float) -> bytes:
    """What a child reported before it was killed; the time counts from its birth."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            add_for_ever(folder, bundle, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(ours, "rb") as pipe:
        reported = pipe.read()
    if not os.WIFSIGNALED(status):
        sys.exit("the child ended by itself; its message stands above")
    return reported


def faults(folder: Path, bundle: Bundle, at_least: int) -> Iterator[str]:
    """What is wrong with the folder, where at least so many names were confirmed."""
    file, encoder = folder / BANK_FILE, Encoder(bundle.manifest.embed_dim)
    bank = ClassBank.load(file, bundle.manifest.encoder_digest) if file.exists() else bundle.bank
    count = len(bank.names) - len(bundle.bank.names)
    if bank.names != (*bundle.bank.names, *map(added_name, range(count))):
        yield f"names are not the first {count}"
    if not at_least <= count <= at_least + 1:
        yield f"{at_least} names were confirmed, {count} are there"
    new = [(name,) for name in bank.names[len(bundle.bank.names) :]]
    expected = np.concatenate([bundle.bank.embeddings, encoder(new)])
    if not np.array_equal(bank.embeddings, expected):
        yield "rows are not the encoder's"
    store = BankStore.open(folder, bundle, encoder)
    if store.etag != bank.content_digest or [e.origin for e in store.snapshot.entries()].count("added") != count:
        yield "opens as something else"
    store.close()
    if left := [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]:
        yield f"left behind: {left}"


def main() -> None:
    """Print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600, help="stop after that, with fewer kills")
    parser.add_argument("--rows", type=int, default=1000, help="classes of the bundle")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    bundle = example_bundle(given.rows, given.dim)
    counts: Counter[str] = Counter()
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        started, puts, stored = time.perf_counter(), 0, 0
        span = timed_put(folder / "trial", bundle)
        while counts["kills"] < given.kills and time.perf_counter() - started < given.seconds and not broken:
            counts["kills"] += 1
            reported = killed_child(folder / "state", bundle, chance.uniform(0, 5 * span))
            puts += reported.count(b".")
            confirmed = stored + reported.count(b".")
            counts["killed before the folder was open"] += not reported
            counts["killed before the new file took its place"] += any((folder / "state").glob(".bank*"))
            try:
                broken += faults(folder / "state", bundle, confirmed) if (folder / "state").exists() else ()
            except Exception as error:
                broken.append(f"{type(error).__name__}: {error}")
            else:
                now = count_added(folder / "state", bundle)
                counts["stored, killed before it was confirmed"] += now == confirmed + 1
                stored = now
        seconds = time.perf_counter() - started
    table = {**counts, "puts confirmed": puts, "broken or lost": len(broken)}
    for what, count in table.items():
        print(f"{what:<42} {count:>6}")
    print(json.dumps({**vars(given), **table, "faults": broken, "seconds": round(seconds, 1)}))
    sys.exit(bool(broken))


def timed_put(folder: Path, bundle: Bundle) -> float:
    """Seconds that opening the folder and adding one class take here."""
    start = time.perf_counter()
    store = BankStore.open(folder, bundle, Encoder(bundle.manifest.embed_dim))
    store.put("trial")
    store.close()
    return time.perf_counter() - start


def count_added(folder: Path, bundle: Bundle) -> int:
    """How many names are in the file beyond the bundle's."""
    file = folder / BANK_FILE
    return len(ClassBank.load(file).names) - len(bundle.bank.names) if file.exists() else 0


if __name__ == "__main__":
    main()
