"""SAR's own quantity for a new name: does the learned prompt keep the relations that a hand-crafted one gives it?

Similarity Alignment Regularization (Jung and Lee, arXiv 2502.11969; the equation is ours, ``docs/methods/sar.md``)
trains a prompt so that, with w_i the learned and v_i the hand-crafted unit embedding of a name::

    P_i = softmax over j != i of w_i . v_j / tau        Q_i = softmax over j != i of v_i . v_j / tau
    distance_i = KL(Q_i || P_i)                         in nats

stay small. Here j runs over classes of the bank, and a name is conspicuous where its distance is beyond the 99th
percentile of those classes' own. Nothing says that such a name is recognised badly; it says that the prompt, which was
tuned on other names, has moved it further than it moves the bank's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.lint.finding import Finding, told_apart

TAU = 0.1
"""Temperature of the softmaxes: the default of ``sar-train``'s SAR."""
PERCENTILE = 99.0
MOST_ANCHORS = 1000
"""Classes j; of a larger bank, as many at even steps."""
LEAST_ANCHORS = 50
"""Fewer have no percentile worth the name."""


class Relations:
    """The anchors v_j and what is usual among them.

    Args:
        names: J class names of the bank.
        learned: (J, D) unit rows of these under the learned prompt.
        handcrafted: (J, D) unit rows of the same under the hand-crafted prompt.
    """

    def __init__(self, names: Sequence[str], learned: Floats, handcrafted: Floats) -> None:
        self._columns = {name: column for column, name in enumerate(names)}
        self._anchors = handcrafted
        self.limit = float(np.percentile(self.distances(names, learned, handcrafted), PERCENTILE))

    def distances(self, names: Sequence[str], learned: Floats, handcrafted: Floats) -> npt.NDArray[np.float64]:
        """KL(Q_i || P_i) in nats (N,) of N names with unit rows (N, D); an anchor leaves its own column out."""
        own = [(row, self._columns[name]) for row, name in enumerate(names) if name in self._columns]
        logs = []
        for rows in (handcrafted, learned):
            logits = (rows @ self._anchors.T).astype(np.float64) / TAU
            for row, column in own:
                logits[row, column] = -np.inf
            top = logits.max(axis=1, keepdims=True)
            logs.append(logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))
        teacher, student = logs
        with np.errstate(invalid="ignore"):  # the column left out: 0 * (-inf + inf)
            terms = np.exp(teacher) * (teacher - student)
        result: npt.NDArray[np.float64] = np.nansum(terms, axis=1)
        return result

    def check(self, names: Sequence[str], learned: Floats, handcrafted: Floats) -> list[Finding]:
        """A finding for each of N names that the learned prompt has moved further than is usual."""
        found = self.distances(names, learned, handcrafted)
        findings = []
        for name, distance in zip(names, found.tolist(), strict=True):
            if distance > self.limit:
                nats, limit = told_apart(distance, self.limit)
                message = (
                    f"the learned prompt changes its relations to the bank by {nats} nats, 99 % of the bank's classes "
                    f"stay below {limit}; try it on photos, or word it otherwise"
                )
                findings.append(Finding("moved", "warning", name, message))
        return findings
