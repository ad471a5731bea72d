"""Small banks with rows that depend on the text alone."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank, Learned, PhotoSet
from sar_infer.storage.named_tensors import read_only

DIM = 4
ENCODER = "a" * 64


@functools.cache
def unit_row(text: str, dim: int = DIM) -> npt.NDArray[np.float32]:
    """(dim,) of length 1, read-only."""
    row = np.random.default_rng(list(text.encode())).normal(size=dim)
    return read_only((row / np.linalg.norm(row)).astype(np.float32))


def unit_rows(texts: Iterable[str], dim: int = DIM) -> npt.NDArray[np.float32]:
    """(N, dim), a row a text."""
    return np.array([unit_row(text, dim) for text in texts], dtype=np.float32).reshape(-1, dim)


def example_bank(names: Iterable[str] = ("cat", "dog", "fox")) -> ClassBank:
    names = tuple(names)
    return ClassBank.of(names, unit_rows(names), ENCODER, provenance={"list": "mine"})


def photo_set(*labels: str, photos_only: bool = False, dim: int = DIM) -> PhotoSet:
    """The photos of these labels: equal labels are the same photo."""
    digests = [hashlib.sha256(label.encode()).digest() for label in labels]
    return PhotoSet.of(digests, unit_rows(labels, dim), photos_only=photos_only)


def learning(bank: ClassBank, sums: Mapping[str, str], photos: int = 9) -> Learned:
    """Return learned sums of a bank's classes, each twice the row of a text, given by class name."""
    by_key = {bank.find(name): (2 * unit_row(text, bank.dim), 2.5 + n) for n, (name, text) in enumerate(sums.items())}
    return Learned((unit_row("translation", bank.dim) / 8).astype(np.float32), by_key, photos, {"temperature": 1.5})


def learned(bank: ClassBank) -> tuple[object, ...] | None:
    """Return the learned sums of a bank, comparable, by class name."""
    one = bank.learned
    if one is None:
        return None
    sums = {bank.entries[key].name: (row.tolist(), count) for key, (row, count) in one.by_key.items()}
    return sums, one.translation.tolist(), dict(one.numbers), one.photos, one.stale


def fitted(bank: ClassBank) -> dict[str, object] | None:
    """The statistics that a bank was given, comparable."""
    tensors = bank.fitted
    return None if tensors is None else {name: (one.dtype.str, one.tolist()) for name, one in sorted(tensors.items())}


def content(bank: ClassBank) -> tuple[object, ...]:
    """All of a bank but its history, comparable."""
    entries = {
        key: (
            *entry[2:-1],
            entry.name,
            entry.embedding.tobytes(),
            photos.digests,
            photos.rows.tobytes(),
            photos.photos_only,
        )
        for key, entry in bank.entries.items()
        for photos in [entry.photos]
    }
    totals = {key: entry.photos.total.tolist() for key, entry in bank.special.items() if entry.photos}
    return (
        [*entries.items()],
        totals,
        bank.embeddings.tobytes(),
        bank.encoder_digest,
        dict(bank.provenance),
        bank.calibration,
        fitted(bank),
        learned(bank),
    )
