"""What a smaller graph has to reach beside the float32 one to be kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from sar_train.export.precision.answers import Logits, best
from sar_train.export.precision.batches import Rows


@dataclass(frozen=True)
class Figures:
    """One graph beside another on the same samples.

    Attributes:
        samples: how many.
        min_cosine: the smallest between both graphs' rows.
        mean_cosine: their mean.
        top1_agreement: share of samples, 0..1, whose best class is the same.
    """

    samples: int
    min_cosine: float
    mean_cosine: float
    top1_agreement: float


@dataclass(frozen=True)
class Gate:
    """Bounds; NaN passes none of them.

    Attributes:
        min_cosine: for the worst sample.
        mean_cosine: for all together.
        top1_agreement: share of samples, 0..1.
        speedup: over the float32 graph.
    """

    min_cosine: float
    mean_cosine: float
    top1_agreement: float
    speedup: float = 0.0

    def with_least(self, cosine: float | None, agreement: float | None) -> Gate:
        """The same gate with another bound for all cosines, and for the answers; None leaves what is there."""
        known = {"min_cosine": cosine, "mean_cosine": cosine, "top1_agreement": agreement}
        return dataclasses.replace(self, **{name: value for name, value in known.items() if value is not None})

    def failures(self, found: Figures, speedup: float = np.inf) -> list[str]:
        """Each bound that is missed, in words; empty where all hold."""
        measured = (
            ("cosine on the worst", found.min_cosine, self.min_cosine, ".5f"),
            ("mean cosine", found.mean_cosine, self.mean_cosine, ".5f"),
            ("same answer on", found.top1_agreement, self.top1_agreement, ".2%"),
            ("times as fast:", speedup, self.speedup, ".2f"),
        )
        return [
            f"{what} {value:{form}}, expected at least {bound:{form}}"
            for what, value, bound, form in measured
            if not value >= bound
        ]


GATES = {
    "fp16": Gate(min_cosine=0.9999, mean_cosine=0.9999, top1_agreement=0.995),
    "int8": Gate(min_cosine=0.97, mean_cosine=0.99, top1_agreement=0.98, speedup=1.0),
}
"""By precision, for both encoders. float16 is kept for its size and for GPUs, INT8 only where it is no slower."""


def beside(rows: Rows, reference: Rows, logits: Logits) -> Figures:
    """Compare unit rows (N, D) with those of the float32 graph; ``logits`` is what both choose by."""
    cosines = (rows * reference).sum(1)
    same = best(rows, logits) == best(reference, logits)
    return Figures(len(rows), float(cosines.min()), float(cosines.mean()), float(same.mean()))
