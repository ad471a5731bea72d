"""A rule on embeddings: names that nearly are a class of the bank."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from sar_infer._arrays import Floats, at_even_steps, nearest
from sar_infer.bank import ClassBank
from sar_infer.bank_advice.finding import Finding

NEAR_PERCENTILE = 99.9
MOST_SAMPLES = 2000
"""Number of bank classes whose own nearest neighbour is looked up; of a larger bank, as many at even steps."""
MOST_COMPARED = 50_000
"""Number of classes that these are compared with; a neighbour that is left out can only lower the limit."""
_PIECE = 64
"""Number of sampled classes that are looked up at a time."""
LEAST_CLASSES = 100
"""Number of classes below which a percentile means nothing; then ``ABSOLUTE`` is the limit."""
ABSOLUTE = 0.95
HIGHEST = 0.99
"""The limit is never above this, so that a bank that doubles classes itself does not hide doubles."""


class Neighbours:
    """Finds names whose embedding nearly is that of a class of the bank, so that images are shared between the two.

    Cosines of text embeddings are comparable within one encoder only, so the bank itself gives the limit: the 99.9th
    percentile of the cosines between its classes and their nearest neighbours. A name above it is nearer to a class
    than all but one in a thousand classes of the bank are to any other.
    """

    def __init__(self, bank: ClassBank) -> None:
        self._bank = bank
        self._few = len(bank.names) < LEAST_CLASSES
        self._sample, self._among = (at_even_steps(len(bank.names), most) for most in (MOST_SAMPLES, MOST_COMPARED))
        self._cosines: list[Floats] = []
        self._further = self._nearest_cosines()

    @functools.cached_property
    def limit(self) -> float:
        """Return the cosine above which a name is too near."""
        if self._few:
            return ABSOLUTE
        self._cosines += self._further
        return min(float(np.percentile(np.concatenate(self._cosines), NEAR_PERCENTILE)), HIGHEST)

    def is_passed(self, cosine: float) -> bool:
        """Return True if a cosine is above the limit.

        Most are not, and a glance at some classes shows it: as many as are beyond the percentile have nearer ones.
        """
        beyond = len(self._sample) - int((len(self._sample) - 1) * NEAR_PERCENTILE / 100)
        while not self._few and cosine <= HIGHEST:
            if sum(np.count_nonzero(piece >= cosine) for piece in self._cosines) >= beyond:
                return False
            piece = next(self._further, None)
            if piece is None:
                break
            self._cosines.append(piece)
        return cosine > self.limit

    def _nearest_cosines(self) -> Iterator[Floats]:
        """Yield the cosines of the sampled classes to their nearest neighbours, piece by piece."""
        bank = self._bank
        is_sampled = len(self._among) < len(bank.names)
        rows = bank.embeddings[np.union1d(self._among, self._sample)] if is_sampled else bank.embeddings
        for start in range(0, len(self._sample), _PIECE):
            yield nearest(rows, bank.embeddings[self._sample[start : start + _PIECE]], 2)[1][:, 1]

    def check(self, names: Sequence[str], rows: Floats) -> list[Finding]:
        """Return a finding for each of N names with unit rows (N, D) that is too near a class of another name."""
        if not len(self._bank.names) or not names:
            return []
        findings = []
        for name, positions, cosines in zip(names, *nearest(self._bank.embeddings, rows, 2), strict=True):
            others = [(self._bank.names[p], c) for p, c in zip(positions.tolist(), cosines.tolist(), strict=True)]
            other, cosine = next(((n, c) for n, c in others if n != name), (name, -1.0))
            if self.is_passed(cosine):
                shown, limit = _told_apart(cosine, self.limit)
                message = (
                    f"has cosine {shown} to {other!r}, above {limit}, and photos of the one may be "
                    "taken for the other; choose another wording, or make it an alias if both mean the same"
                )
                findings.append(Finding("near-duplicate", "warning", name, message, other))
        return findings


def _told_apart(one: float, two: float) -> tuple[str, str]:
    """Return two numbers as text, with as many digits, three at least, as show which is larger."""
    for digits in range(3, 18):
        texts = f"{one:#.{digits}g}", f"{two:#.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts
