"""The best classes of unit rows, exactly, out of any number of classes: pure functions on arrays.

Classes are taken a block at a time, so that memory does not grow with their number: of those seen so far, only the best
and a running ``logsumexp`` are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices, product_chunks
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.composer import Linear

_CELLS = 2**20
"""Number of logits that are held at once: 65,536 classes for a batch of 16."""
_SORTED = 256
"""Up to this many columns, sorting all of them is as fast as selecting the best."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best K classes of each of N rows, the best first.

    Attributes:
        columns: (N, K) positions in the class set; background classes are never among them.
        logits: (N, K), what the scores are a softmax of.
        scores: (N, K) probabilities over all classes, background included, if it is one of them.
        unknown: (N,) probability that it is none of them.
        best_background: (N, R) position of the best background class; R = 1, or 0 if the set has no background.
        best_background_scores: (N, R) its score.
    """

    columns: Indices
    logits: Floats
    scores: Floats
    unknown: Floats
    best_background: Indices
    best_background_scores: Floats


def rank(rows: Floats, classes: ClassSet, k: int) -> Ranking:
    """Return the best ``k`` classes of each row.

    Args:
        rows: (N, D) unit rows.
        classes: C classes.
        k: Number of classes, at most.
    """
    best, best_background, total = _Best(len(rows), k), _Best(len(rows), 1), _LogSumExp()
    for start, logits in _blocks(rows, classes.linear):
        stop = start + logits.shape[1]
        total.add(logits)
        background = None if classes.background is None else classes.background[start:stop]
        if background is None or not background.any():
            best.add(logits, start)
        else:
            for side, columns in ((best, np.flatnonzero(~background)), (best_background, np.flatnonzero(background))):
                side.add(logits[:, columns], start, columns)
    apart = total.value() - classes.linear.unknown.scores(rows)
    return Ranking(
        best.columns,
        best.logits,
        total.scores(best.logits),
        np.exp(-np.logaddexp(0, apart)).astype(np.float32),
        best_background.columns,
        total.scores(best_background.logits),
    )


def logits(rows: Floats, classes: ClassSet) -> Floats:
    """Return logits (N, C + 1) for N unit rows (N, D); the last column is that of *unknown*."""
    unknown = classes.linear.unknown.scores(rows)[:, np.newaxis]
    return np.concatenate([*(block for _, block in _blocks(rows, classes.linear)), unknown], axis=1)


def nearest(classes: ClassSet, columns: Sequence[int], k: int) -> list[list[tuple[int, float]]]:
    """Return the ``k`` nearest other classes of each of some classes, (column, cosine); background is none of them."""
    queries, best = classes.rows(columns), _Best(len(columns), k + 1)
    for start, cosines in product_chunks(classes.several, queries, _CELLS):
        if classes.background is None:
            best.add(cosines, start)
        else:
            answers = np.flatnonzero(~classes.background[start : start + cosines.shape[1]])
            best.add(cosines[:, answers], start, answers)
    pairs = zip(columns, best.columns.tolist(), best.logits.tolist(), strict=True)
    return [
        [(other, cosine) for other, cosine in zip(others, cosines, strict=True) if other != column][:k]
        for column, others, cosines in pairs
    ]


def top_k(scores: Floats, k: int) -> Indices:
    """Return indices (N, min(k, C)) of the largest entries in each row of (N, C), largest first, ties by column."""
    k = min(k, scores.shape[-1])
    if scores.shape[-1] <= max(_SORTED, 4 * k):
        return np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    least = np.partition(scores, -k, axis=-1)[:, -k]
    result = np.empty((len(scores), k), dtype=np.intp)
    for row, bound in enumerate(least):
        candidates = np.flatnonzero(~(scores[row] < bound))  # of a row of NaN the first columns, as when sorted
        result[row] = candidates[np.argsort(-scores[row, candidates], kind="stable")[:k]]
    return result


class _Best:
    """The largest ``k`` logits of each of N rows seen so far, largest first, ties in column order."""

    def __init__(self, rows: int, k: int) -> None:
        self._k = k
        self.logits: Floats = np.empty((rows, 0), dtype=np.float32)
        self.columns: Indices = np.empty((rows, 0), dtype=np.intp)

    def add(self, logits: Floats, start: int, columns: Indices | None = None) -> None:
        """Add a block (N, B) whose first column is ``start``, or some columns (B,) of it, all greater than before."""
        best, rows = top_k(logits, self._k), np.arange(len(logits))[:, np.newaxis]
        values, numbers = logits[rows, best], start + (best if columns is None else columns[best])
        if self.columns.shape[1]:
            values = np.concatenate([self.logits, values], axis=1)
            numbers = np.concatenate([self.columns, numbers], axis=1)
            order = top_k(values, self._k)
            values, numbers = values[rows, order], numbers[rows, order]
        self.logits, self.columns = values, numbers


class _LogSumExp:
    """The running ``logsumexp`` of N rows, as the largest value and a sum of powers relative to it."""

    def __init__(self) -> None:
        self._peak: Floats = np.empty(0, np.float32)
        self._sum = np.empty(0, np.float64)

    def add(self, values: Floats) -> None:
        """Add a block (N, B)."""
        peak = values.max(axis=1)
        powers = np.exp(values - peak[:, np.newaxis]).sum(axis=1).astype(np.float64)
        if len(self._peak):
            peak, before, here = np.maximum(peak, self._peak), self._peak, peak
            powers = self._sum * np.exp(before - peak) + powers * np.exp(here - peak)
        self._peak, self._sum = peak, powers

    def value(self) -> npt.NDArray[np.float64]:
        """Return ``logsumexp`` (N,) of everything that was added."""
        return self._peak.astype(np.float64) + np.log(self._sum)

    def scores(self, values: Floats) -> Floats:
        """Return the softmax (N, K), over everything that was added, of values (N, K) that are part of it."""
        if not values.size:
            return values
        powers: Floats = np.exp(values - self._peak[:, np.newaxis])
        powers /= self._sum.astype(np.float32)[:, np.newaxis]
        return powers


def _blocks(rows: Floats, linear: Linear) -> Iterator[tuple[int, Floats]]:
    """Yield the first column of some classes, and their logits (N, B)."""
    start = 0
    for weights, factor in linear.pieces:
        for position, logits in product_chunks([weights], rows, _CELLS):
            at = start + position
            if factor != 1:
                np.multiply(logits, np.float32(factor), out=logits)
            if linear.bias is not None:
                np.add(logits, linear.bias[at : at + logits.shape[1]], out=logits)
            yield at, logits
        start += len(weights)
