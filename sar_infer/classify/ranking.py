"""The best classes of unit rows, exactly, out of any number of classes: pure functions on arrays.

Classes are taken a block at a time, so that memory does not grow with their number: of those seen so far, only the best
and a running ``logsumexp`` are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices, product_chunks
from sar_infer.classifiers.composition import composed_logits
from sar_infer.classifiers.scores import softmax
from sar_infer.classify.class_set import ClassSet

_CELLS = 2**20
"""Number of logits that are held at once: 65,536 classes for a batch of 16."""
_SORTED = 256
"""Up to this many columns, sorting all of them is as fast as selecting the best."""


@dataclass(frozen=True)
class Scale:
    """From a cosine to a logit, ``factor * cosine + bias``, and to scores, ``softmax(logits / temperature)``."""

    factor: float = 1.0
    bias: float = 0.0
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best K classes of each of N rows, the best first.

    Attributes:
        columns: (N, K) positions in the class set; background classes are never among them.
        similarities: (N, K) cosines.
        logits: (N, K), not divided by the temperature.
        scores: (N, K) softmax probabilities over all classes, background included.
        logsumexp: (N,) float64, ``T logsumexp(logits / T)`` over all classes; the energy is its negative.
        best_background: (N, R) place of the best background class; R = 1, or 0 if the set has no background.
        best_background_scores: (N, R) its score.
    """

    columns: Indices
    similarities: Floats
    logits: Floats
    scores: Floats
    logsumexp: npt.NDArray[np.float64]
    best_background: Indices
    best_background_scores: Floats


def rank(rows: Floats, classes: ClassSet, scale: Scale, k: int) -> Ranking:
    """Return the best ``k`` classes of each row.

    Args:
        rows: (N, D) unit rows.
        classes: C classes.
        scale: From cosines to scores.
        k: Number of classes, at most.
    """
    best, best_background, total = _Best(len(rows), k), _Best(len(rows), 1), _LogSumExp()
    for start, logits, similarities in _blocks(rows, classes, scale):
        stop = start + logits.shape[1]
        total.add(_scaled(logits, scale))
        background = None if classes.background is None else classes.background[start:stop]
        if background is None or not background.any():
            best.add(logits, similarities, start)
        else:
            for side, columns in ((best, np.flatnonzero(~background)), (best_background, np.flatnonzero(background))):
                side.add(logits[:, columns], similarities[:, columns], start, columns)
    return Ranking(
        columns=best.columns,
        similarities=best.similarities if classes.terms is None else _cosines(rows, classes, best.columns),
        logits=best.logits,
        scores=total.scores(_scaled(best.logits, scale)),
        logsumexp=scale.temperature * total.value(),
        best_background=best_background.columns,
        best_background_scores=total.scores(_scaled(best_background.logits, scale)),
    )


def logits(rows: Floats, classes: ClassSet, scale: Scale) -> Floats:
    """Return logits (N, C), not divided by the temperature, for N unit rows (N, D)."""
    return np.concatenate([block for _, block, _ in _blocks(rows, classes, scale)], axis=1)


def scores(values: Floats, scale: Scale) -> Floats:
    """Return probabilities (N, C) of logits (N, C) over all classes."""
    return softmax(_scaled(values, scale))


def nearest(classes: ClassSet, columns: Sequence[int], k: int) -> list[list[tuple[int, float]]]:
    """Return the ``k`` nearest other classes of each of some classes, (column, cosine), the nearest first."""
    neighbours = rank(classes.rows(columns), dataclasses.replace(classes, terms=None), Scale(), k + 1)
    pairs = zip(columns, neighbours.columns.tolist(), neighbours.similarities.tolist(), strict=True)
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
        self.similarities = self.logits
        self.columns: Indices = np.empty((rows, 0), dtype=np.intp)

    def add(self, logits: Floats, similarities: Floats, start: int, columns: Indices | None = None) -> None:
        """Add a block (N, B) whose first column is ``start``, or some columns (B,) of it, all greater than before."""
        best, rows = top_k(logits, self._k), np.arange(len(logits))[:, np.newaxis]
        entries = logits[rows, best], similarities[rows, best], start + (best if columns is None else columns[best])
        if self.columns.shape[1]:
            logits = np.concatenate([self.logits, entries[0]], axis=1)
            similarities = np.concatenate([self.similarities, entries[1]], axis=1)
            columns = np.concatenate([self.columns, entries[2]], axis=1)
            order = top_k(logits, self._k)
            entries = logits[rows, order], similarities[rows, order], columns[rows, order]
        self.logits, self.similarities, self.columns = entries


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


def _blocks(rows: Floats, classes: ClassSet, scale: Scale) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield the first column of some classes, their logits and their cosines (N, B).

    With statistics the second stand for the third: the cosines of the best are taken later.
    """
    if classes.terms is None:
        for start, similarities in product_chunks(classes.several, rows, _CELLS):
            yield start, _logits(similarities, scale), similarities
    else:
        for start, logits in composed_logits(classes.terms, classes.several, rows, _CELLS):
            biased = logits + np.float32(scale.bias) if scale.bias else logits
            yield start, biased, biased


def _logits(similarities: Floats, scale: Scale) -> Floats:
    result = similarities * np.float32(scale.factor)
    return result + np.float32(scale.bias) if scale.bias else result


def _cosines(rows: Floats, classes: ClassSet, columns: Indices) -> Floats:
    """Return the cosines (N, K) between unit rows (N, D) and the text rows of some columns (N, K) of each."""
    result: Floats = (classes.rows(columns) @ rows[:, :, np.newaxis])[:, :, 0]
    return result


def _scaled(values: Floats, scale: Scale) -> Floats:
    return values if scale.temperature == 1 else values / np.float32(scale.temperature)
