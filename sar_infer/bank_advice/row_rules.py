"""Rules on embeddings: names that nearly are a class of the bank, and names that the learned prompt has moved.

The second rule is SAR's own quantity for a new name: does the learned prompt keep the relations that a hand-crafted
one gives it? Similarity Alignment Regularization (Jung and Lee, arXiv 2502.11969; the equation is ours,
``docs/methods/sar.md``) trains a prompt so that, with w_i the learned and v_i the hand-crafted unit embedding of a
name::

    P_i = softmax over j != i of w_i . v_j / tau        Q_i = softmax over j != i of v_i . v_j / tau
    distance_i = KL(Q_i || P_i)                         in nats

stay small. Here j runs over classes of the bank, and a name is reported if its distance is beyond the 99th percentile
of those classes' own. That does not mean that such a name is recognised badly; it means that the prompt, which was
tuned on other names, has moved it further than it moves the bank's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank, nearest
from sar_infer.bank.search import at_even_steps, nearest_rows
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
TAU = 0.1
"""Temperature of the softmaxes: the default of ``sar-train``'s SAR."""
MOVED_PERCENTILE = 99.0
MOST_ANCHORS = 1000
"""Number of classes j; of a larger bank, as many at even steps."""
LEAST_ANCHORS = 50
"""Number of classes below which a percentile means nothing."""


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
        self._seen: list[Floats] = []
        self._unseen = self._nearest_cosines()

    @functools.cached_property
    def limit(self) -> float:
        """Return the cosine above which a name is too near."""
        if self._few:
            return ABSOLUTE
        self._seen += self._unseen
        return min(float(np.percentile(np.concatenate(self._seen), NEAR_PERCENTILE)), HIGHEST)

    def is_passed(self, cosine: float) -> bool:
        """Return True if a cosine is above the limit.

        Most are not, and a glance at some classes shows it: as many as are beyond the percentile have nearer ones.
        """
        beyond = len(self._sample) - int((len(self._sample) - 1) * NEAR_PERCENTILE / 100)
        while not self._few and cosine <= HIGHEST:
            if sum(np.count_nonzero(part >= cosine) for part in self._seen) >= beyond:
                return False
            part = next(self._unseen, None)
            if part is None:
                break
            self._seen.append(part)
        return cosine > self.limit

    def _nearest_cosines(self) -> Iterator[Floats]:
        """Yield the cosines of the sampled classes to their nearest neighbours, piece by piece."""
        bank = self._bank
        some = len(self._among) < len(bank.names)
        rows = bank.rows_at(np.union1d(self._among, self._sample)) if some else bank.embeddings
        for start in range(0, len(self._sample), _PIECE):
            yield nearest_rows(rows, bank.rows_at(self._sample[start : start + _PIECE]), 2)[1][:, 1]

    def check(self, names: Sequence[str], rows: Floats) -> list[Finding]:
        """Return a finding for each of N names with unit rows (N, D) that is too near a class of another name."""
        if not len(self._bank.names) or not names:
            return []
        findings = []
        for name, places, cosines in zip(names, *nearest(self._bank, rows, 2), strict=True):
            others = [(self._bank.names[p], c) for p, c in zip(places.tolist(), cosines.tolist(), strict=True)]
            other, cosine = next(((n, c) for n, c in others if n != name), (name, -1.0))
            if self.is_passed(cosine):
                found, limit = _told_apart(cosine, self.limit)
                message = (
                    f"has cosine {found} to {other!r}, above {limit}, and photos of the one may be "
                    "taken for the other; choose another wording, or make it an alias if both mean the same"
                )
                findings.append(Finding("near-duplicate", "warning", name, message, other))
        return findings


class Relations:
    """Finds names whose relations the learned prompt changes more than is usual; it holds the anchors v_j.

    Args:
        names: J class names of the bank.
        learned: (J, D) unit rows of these under the learned prompt.
        handcrafted: (J, D) unit rows of the same under the hand-crafted prompt.
    """

    def __init__(self, names: Sequence[str], learned: Floats, handcrafted: Floats) -> None:
        self._columns = {name: column for column, name in enumerate(names)}
        self._anchors = handcrafted
        self.limit = float(np.percentile(self.distances(names, learned, handcrafted), MOVED_PERCENTILE))

    def distances(self, names: Sequence[str], learned: Floats, handcrafted: Floats) -> npt.NDArray[np.float64]:
        """Return KL(Q_i || P_i) in nats (N,) of N names with unit rows (N, D); an anchor leaves out its own column."""
        own = [(row, self._columns[name]) for row, name in enumerate(names) if name in self._columns]
        logs = []
        for rows in (handcrafted, learned):
            logits = (rows @ self._anchors.T).astype(np.float64) / TAU
            for row, column in own:
                logits[row, column] = -np.inf
            top = logits.max(axis=1, keepdims=True)
            logs.append(logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))
        teacher, student = logs
        with np.errstate(invalid="ignore"):  # 0 * (-inf + inf) in the column that is left out
            terms = np.exp(teacher) * (teacher - student)
        result: npt.NDArray[np.float64] = np.nansum(terms, axis=1)
        return result

    def check(self, names: Sequence[str], learned: Floats, handcrafted: Floats) -> list[Finding]:
        """Return a finding for each of N names that the learned prompt has moved further than is usual."""
        found = self.distances(names, learned, handcrafted)
        findings = []
        for name, distance in zip(names, found.tolist(), strict=True):
            if distance > self.limit:
                nats, limit = _told_apart(distance, self.limit)
                message = (
                    f"the learned prompt changes its relations to the bank by {nats} nats, 99 % of the bank's classes "
                    f"stay below {limit}; try it on photos, or choose another wording"
                )
                findings.append(Finding("moved", "warning", name, message))
        return findings


def _told_apart(one: float, two: float) -> tuple[str, str]:
    """Return two numbers as text, with as many digits, three at least, as show which is larger."""
    for digits in range(3, 18):
        texts = f"{one:#.{digits}g}", f"{two:#.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts
