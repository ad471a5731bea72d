"""Names whose embedding nearly is that of a class that the bank has: photos would be shared between the two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sar_infer.bank import ClassBank, nearest
from sar_infer.lint.finding import Finding

Floats = npt.NDArray[np.float32]

PERCENTILE = 99.9
MOST_SAMPLES = 2000
"""Bank classes whose own nearest neighbour is looked up; of a larger bank, as many at even steps."""
LEAST_CLASSES = 100
"""Fewer have no percentile worth the name; then ``ABSOLUTE`` is the limit."""
ABSOLUTE = 0.95
HIGHEST = 0.99
"""A bank that doubles classes itself does not hide doubles: the limit is never above this."""
_AT_ONCE = 256


class Neighbours:
    """What is near in a bank, by its own measure: cosines of text embeddings are comparable within one encoder only.

    The limit is the 99.9th percentile of the cosines between the bank's classes and their nearest neighbours: what is
    nearer than that is nearer than all but one in a thousand of the bank's classes are to any other.
    """

    def __init__(self, bank: ClassBank) -> None:
        self._bank = bank
        self.limit = ABSOLUTE
        if len(bank.names) >= LEAST_CLASSES:
            sample = at_even_steps(len(bank.names), MOST_SAMPLES)
            _, cosines = _two_nearest(bank, bank.embeddings[sample])
            self.limit = min(float(np.percentile(cosines[:, 1], PERCENTILE)), HIGHEST)

    def check(self, names: Sequence[str], rows: Floats) -> list[Finding]:
        """A finding for each of N names with unit rows (N, D) that is too near a class of another name."""
        if not len(self._bank.names) or not names:
            return []
        findings = []
        for name, places, cosines in zip(names, *_two_nearest(self._bank, rows), strict=True):
            others = [(self._bank.names[p], c) for p, c in zip(places.tolist(), cosines.tolist(), strict=True)]
            other, cosine = next(((n, c) for n, c in others if n != name), (name, -1.0))
            if cosine > self.limit:
                message = (
                    f"has cosine {cosine:.3f} to {other!r}, above {self.limit:.3f}, and photos of the one may be "
                    "taken for the other; word it otherwise, or make it an alias"
                )
                findings.append(Finding("near-duplicate", "warning", name, message, other))
        return findings


def _two_nearest(bank: ClassBank, rows: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Places and cosines (N, 2) of the two nearest classes, some rows at a time, so that a large bank fits."""
    pieces = [nearest(bank, rows[start : start + _AT_ONCE], 2) for start in range(0, len(rows), _AT_ONCE)]
    places, cosines = zip(*pieces, strict=True)
    return np.concatenate(places), np.concatenate(cosines)


def at_even_steps(count: int, most: int) -> npt.NDArray[np.intp]:
    """Up to ``most`` different places of ``count``, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))
