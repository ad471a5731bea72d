"""Names whose embedding nearly is that of a class that the bank has: photos would be shared between the two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, nearest
from sar_infer.bank.search import at_even_steps, nearest_rows
from sar_infer.lint.finding import Finding, told_apart

PERCENTILE = 99.9
MOST_SAMPLES = 2000
"""Bank classes whose own nearest neighbour is looked up; of a larger bank, as many at even steps."""
MOST_COMPARED = 50_000
"""Classes that these are compared with, likewise: a neighbour that is left out makes the limit lower, never higher."""
LEAST_CLASSES = 100
"""Fewer have no percentile worth the name; then ``ABSOLUTE`` is the limit."""
ABSOLUTE = 0.95
HIGHEST = 0.99
"""A bank that doubles classes itself does not hide doubles: the limit is never above this."""


class Neighbours:
    """What is near in a bank, by its own measure: cosines of text embeddings are comparable within one encoder only.

    The limit is the 99.9th percentile of the cosines between the bank's classes and their nearest neighbours: what is
    nearer than that is nearer than all but one in a thousand of the bank's classes are to any other.
    """

    def __init__(self, bank: ClassBank) -> None:
        self._bank = bank
        self.limit = ABSOLUTE
        if len(bank.names) >= LEAST_CLASSES:
            sample, among = (at_even_steps(len(bank.names), most) for most in (MOST_SAMPLES, MOST_COMPARED))
            rows = bank.embeddings if len(among) == len(bank.names) else bank.embeddings[np.union1d(among, sample)]
            _, cosines = nearest_rows(rows, bank.embeddings[sample], 2)
            self.limit = min(float(np.percentile(cosines[:, 1], PERCENTILE)), HIGHEST)

    def check(self, names: Sequence[str], rows: Floats) -> list[Finding]:
        """A finding for each of N names with unit rows (N, D) that is too near a class of another name."""
        if not len(self._bank.names) or not names:
            return []
        findings = []
        for name, places, cosines in zip(names, *nearest(self._bank, rows, 2), strict=True):
            others = [(self._bank.names[p], c) for p, c in zip(places.tolist(), cosines.tolist(), strict=True)]
            other, cosine = next(((n, c) for n, c in others if n != name), (name, -1.0))
            if cosine > self.limit:
                found, limit = told_apart(cosine, self.limit)
                message = (
                    f"has cosine {found} to {other!r}, above {limit}, and photos of the one may be "
                    "taken for the other; word it otherwise, or make it an alias"
                )
                findings.append(Finding("near-duplicate", "warning", name, message, other))
        return findings
