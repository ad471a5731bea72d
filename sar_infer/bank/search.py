"""Finding classes: by what people write, and by rows; exact, in memory that a large bank does not change."""

from __future__ import annotations

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.bank.class_bank import ClassBank
from sar_infer.errors import BankError

_CLASSES, _ROWS = 32_768, 256
"""Sides of the largest block of similarities: 32 MiB."""


def find(bank: ClassBank, text: str) -> int:
    """The row of the class with this name or alias, in any case and spacing.

    Raises:
        ClassNameError: there is none, with near spellings; or several that differ in case or space alone.
    """
    return bank.lookup.find(text)


def nearest(bank: ClassBank, rows: Floats, k: int) -> tuple[Indices, Floats]:
    """The ``k`` classes with the largest cosines, by brute force over blocks of the bank.

    Args:
        bank: C classes.
        rows: (N, D) float32, unit rows.
        k: How many, at most C.

    Returns:
        Rows of the bank (N, k) and their cosines (N, k), the largest first, ties in the bank's order.

    Raises:
        BankError: an embedding is not finite.
    """
    return nearest_rows(bank.embeddings, rows, k)


def nearest_rows(embeddings: Floats, rows: Floats, k: int) -> tuple[Indices, Floats]:
    """As ``nearest``, among unit rows (C, D)."""
    count = max(0, min(k, len(embeddings)))
    found = np.empty((len(rows), count), dtype=np.intp)
    best = np.empty((len(rows), count), dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        found[part], best[part] = _nearest(embeddings, rows[part], count)
    return found, best


def at_even_steps(count: int, most: int) -> Indices:
    """Up to ``most`` different places of ``count``, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))


def _nearest(embeddings: Floats, rows: Floats, count: int) -> tuple[Indices, Floats]:
    found = np.empty((len(rows), 0), dtype=np.intp)
    best = np.empty((len(rows), 0), dtype=np.float32)
    for start in range(0, len(embeddings), _CLASSES):
        with np.errstate(all="ignore"):
            similar = rows @ embeddings[start : start + _CLASSES].T
        if not np.isfinite(similar.max(initial=0)):  # of a large bank that is mapped, nobody has looked at the rows
            raise BankError("an embedding is no unit row; the bank is damaged: sar-bank verify BANK_FILE")
        columns = np.arange(similar.shape[1])
        if 0 < count < len(columns):  # what no row has among its best is left out before anything is sorted
            edge = np.partition(similar, -count, axis=1)[:, -count, np.newaxis]
            columns = np.flatnonzero((similar >= edge).any(axis=0))
        places = np.broadcast_to(start + columns, (len(rows), len(columns)))
        best, found = np.hstack([best, similar[:, columns]]), np.hstack([found, places])
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best, found = np.take_along_axis(best, order, axis=1), np.take_along_axis(found, order, axis=1)
    return found, best
