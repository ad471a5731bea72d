"""The best classes of unit rows, exactly, out of any number of classes: pure functions on arrays.

Classes are taken a block at a time, so that memory does not grow with their number: the best so far and a running
``logsumexp`` are kept of what was seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.classify.class_set import ClassSet
from sar_infer.encoders import scoring

Number = TypeVar("Number", bound=np.generic)
_CELLS = 2**20
"""Logits that are held at once: 65,536 classes for a batch of 16."""


@dataclass(frozen=True)
class Scale:
    """A cosine becomes a logit, ``factor * cosine + bias``, and logits scores, ``softmax(logits / temperature)``."""

    factor: float = 1.0
    bias: float = 0.0
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best K classes of each of N rows, the best first.

    Attributes:
        columns: (N, K) places in the class set; background classes are never among them.
        similarities: (N, K) cosines.
        logits: (N, K), not divided by the temperature.
        scores: (N, K) softmax probabilities over all classes, background included.
        evidence: (N,) float64, ``T logsumexp(logits / T)`` over all classes; the energy is its negative.
        rivals: (N, R) the best background class and its score, R = 1; R = 0 where the set has none.
        rival_scores: (N, R).
    """

    columns: Indices
    similarities: Floats
    logits: Floats
    scores: Floats
    evidence: npt.NDArray[np.float64]
    rivals: Indices
    rival_scores: Floats


def rank(rows: Floats, classes: ClassSet, scale: Scale, k: int) -> Ranking:
    """The best ``k`` classes of each row.

    Args:
        rows: (N, D) unit rows.
        classes: C classes; with a head they are ranked in one piece.
        scale: From cosines to scores.
        k: At most so many.
    """
    kept, hidden = _Best(len(rows), k), _Best(len(rows), 1)
    mass = _Mass(len(rows))
    for start, block in _blocks(classes, len(rows)):
        similarities = rows @ block.T
        logits = _logits(similarities, rows, classes, scale)
        mass.add(_scaled(logits, scale))
        background = None if classes.background is None else classes.background[start : start + len(block)]
        if background is None or not background.any():
            kept.add(logits, similarities, np.arange(start, start + len(block)))
        else:
            for best, columns in ((kept, np.flatnonzero(~background)), (hidden, np.flatnonzero(background))):
                best.add(logits[:, columns], similarities[:, columns], start + columns)
    return Ranking(
        kept.columns,
        kept.similarities,
        kept.logits,
        mass.scores(_scaled(kept.logits, scale)),
        scale.temperature * mass.log(),
        hidden.columns,
        mass.scores(_scaled(hidden.logits, scale)),
    )


def logits(rows: Floats, classes: ClassSet, scale: Scale) -> Floats:
    """(N, C), not divided by the temperature, for N unit rows (N, D)."""
    similarities = np.concatenate([rows @ block.T for block in classes.blocks], axis=1)
    return _logits(similarities, rows, classes, scale)


def scores(values: Floats, scale: Scale) -> Floats:
    """(N, C) probabilities of whole logits (N, C)."""
    return scoring.softmax(_scaled(values, scale))


def nearest(classes: ClassSet, columns: Sequence[int], k: int) -> list[list[tuple[int, float]]]:
    """For each of some classes the ``k`` others whose embeddings are most similar, (column, cosine), nearest first."""
    found = rank(classes.rows(columns), dataclasses.replace(classes, head=None), Scale(), k + 1)
    pairs = zip(columns, found.columns.tolist(), found.similarities.tolist(), strict=True)
    return [
        [(other, cosine) for other, cosine in zip(others, cosines, strict=True) if other != column][:k]
        for column, others, cosines in pairs
    ]


class _Best:
    """The largest ``k`` logits of each of N rows seen so far, largest first, ties in column order."""

    def __init__(self, rows: int, k: int) -> None:
        self._k = k
        self.logits: Floats = np.empty((rows, 0), dtype=np.float32)
        self.similarities = self.logits
        self.columns: Indices = np.empty((rows, 0), dtype=np.intp)

    def add(self, logits: Floats, similarities: Floats, columns: Indices) -> None:
        """Take a block (N, B) with the places of its columns (B,), which are behind all that were seen."""
        best = scoring.top_k(logits, self._k)
        merged = np.concatenate([self.logits, np.take_along_axis(logits, best, 1)], axis=1)
        order = scoring.top_k(merged, self._k)
        self.logits = np.take_along_axis(merged, order, 1)
        self.similarities = _merged(self.similarities, np.take_along_axis(similarities, best, 1), order)
        self.columns = _merged(self.columns, columns[best], order)


def _merged(old: npt.NDArray[Number], new: npt.NDArray[Number], order: Indices) -> npt.NDArray[Number]:
    return np.take_along_axis(np.concatenate([old, new], axis=1), order, 1)


class _Mass:
    """The running ``logsumexp`` of N rows: the largest value, and the sum of powers beside it."""

    def __init__(self, rows: int) -> None:
        self._peak: Floats = np.full(rows, -np.inf, dtype=np.float32)
        self._sum = np.zeros(rows, dtype=np.float64)

    def add(self, values: Floats) -> None:
        """Take a block (N, B)."""
        peak = values.max(axis=1)
        powers = np.exp(values - peak[:, np.newaxis]).sum(axis=1)
        higher = np.maximum(peak, self._peak)
        self._sum = self._sum * np.exp(self._peak - higher) + powers * np.exp(peak - higher)
        self._peak = higher

    def log(self) -> npt.NDArray[np.float64]:
        """(N,) ``logsumexp`` of everything."""
        return self._peak.astype(np.float64) + np.log(self._sum)

    def scores(self, values: Floats) -> Floats:
        """(N, K) shares of some values (N, K) that were among those added: their softmax over everything."""
        powers = np.exp(values - self._peak[:, np.newaxis])
        result: Floats = powers / self._sum.astype(np.float32)[:, np.newaxis]
        return result


def _blocks(classes: ClassSet, rows: int) -> Iterator[tuple[int, Floats]]:
    """Where each block starts, and its embeddings; a set with a head is one."""
    size = max(1, _CELLS // max(1, rows))
    if classes.head is not None:
        yield 0, classes.embeddings
        return
    start = 0
    for block in classes.blocks:
        for first in range(0, len(block), size):
            piece = block[first : first + size]
            yield start, piece
            start += len(piece)


def _logits(similarities: Floats, rows: Floats, classes: ClassSet, scale: Scale) -> Floats:
    result = similarities * np.float32(scale.factor)
    result += np.float32(scale.bias)
    return result if classes.head is None else classes.head.combined(result, rows)


def _scaled(values: Floats, scale: Scale) -> Floats:
    return values if scale.temperature == 1 else values / np.float32(scale.temperature)
