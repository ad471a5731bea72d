"""``kill -9`` at random moments of a process that adds classes: the bank file is always the old one or the new one.

    python -m benchmarks.bank_kill [--kills 200] [--seconds 600] [--rows 1000] [--dim 512] [--seed 0]

A child adds numbered names to a bank, one after another, and reports each that ``put`` has confirmed; it is killed
after a random time, from its first instruction on. Then the file must load, hold exactly the first k names with the
rows of their encoder, and k must be at least the number confirmed; and who takes its lock finds no trace of what was
cut off. The next child goes on from there. Ends with status 1 where any of this does not hold.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a process with threads should not fork

import numpy as np
import numpy.typing as npt

from benchmarks.kills import Kills, added, killed_child, not_the_first, stored_bank
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.manifest import Manifest, Preprocess, Provenance, Quality
from sar_infer.server.bank.store import BankStore
from sar_infer.storage.files import owned

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
    """A bundle of which only the bank and a tokenizer exist."""
    mini = open_bundle()
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
        tokenizer=mini.manifest.tokenizer,
        encoder_digest="e" * 64,
        files={},
        quality=Quality(dataset="none"),
        provenance=Provenance("2000-01-01T00:00:00Z", "none", {}),
    )
    bank = ClassBank(names, Encoder(dim)([(name,) for name in names]), "e" * 64).shared(Path("none"))
    return Bundle(mini.path, dataclasses.replace(manifest, digest="d" * 64), bank)


def add_for_ever(file: Path, bundle: Bundle, confirmed: int) -> None:
    """The child: one byte down the pipe for each name that is safe."""
    store = BankStore.open(file, bundle, Encoder(bundle.manifest.embed_dim))
    os.write(confirmed, b"o")
    for number in range(len(store.bank.names) - len(bundle.bank.names), 10**6):
        store.put(added(number))
        os.write(confirmed, b".")


def faults(file: Path, bundle: Bundle, confirmed: int) -> Iterator[str]:
    """Say what is wrong with the file, where so many names were confirmed."""
    encoder, bank = Encoder(bundle.manifest.embed_dim), stored_bank(file, bundle.bank)
    yield from not_the_first(bank, bundle.bank, confirmed)
    new = [(name,) for name in bank.names[len(bundle.bank.names) :]]
    expected = np.concatenate([bundle.bank.embeddings, encoder(new)])
    if not np.array_equal(bank.embeddings, expected):
        yield "rows are not the encoder's"
    if len(bank.history) != len(new):
        yield f"{len(new)} names in {len(bank.history)} steps"
    store = BankStore.open(file, bundle, encoder)
    if store.snapshot.etag != bank.content_digest or store.snapshot.added != len(new):
        yield "opens as something else"
    with owned(file):
        pass
    if left := [entry.name for entry in file.parent.iterdir() if entry.name.startswith(".")]:
        yield f"left behind: {left}"


def main() -> None:
    """Print a table and JSON."""
    rows = {"type": int, "default": 1000, "help": "classes of the bundle"}
    kills = Kills(__doc__, rows=rows, dim={"type": int, "default": 512})
    bundle = example_bundle(kills.options.rows, kills.options.dim)
    with tempfile.TemporaryDirectory() as parent:
        file, stored = Path(parent) / "bank.safetensors", 0
        span = timed_put(Path(parent) / "trial.safetensors", bundle)
        for seconds in kills.moments(0, 5 * span):
            reported = killed_child(partial(add_for_ever, file, bundle), seconds)
            confirmed = stored + reported.count(b".")
            kills.counts["puts confirmed"] += reported.count(b".")
            kills.counts["killed before the file was open"] += not reported
            kills.counts["killed before the new file took its place"] += any(file.parent.glob(".bank*.????????"))
            with kills.looking():
                kills.faults += faults(file, bundle, confirmed)
                stored = len(stored_bank(file, bundle.bank).names) - len(bundle.bank.names)
                kills.counts["stored, killed before it was confirmed"] += stored == confirmed + 1
    kills.tell()


def timed_put(file: Path, bundle: Bundle) -> float:
    """Seconds that opening a file and adding one class take here."""
    start = time.perf_counter()
    BankStore.open(file, bundle, Encoder(bundle.manifest.embed_dim)).put("trial")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
