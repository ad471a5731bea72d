"""The bounds that a smaller graph has to reach beside the float32 one: cosines of rows, and the answers they give."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle_check.comparison import Figures, Logits, same_answer
from sar_infer.bundle_check.finding import at_least, reasons
from sar_infer.classifier import Classifier
from sar_train.export.precision.samples import BATCH


@dataclass(frozen=True)
class Gate:
    """Bounds, none of which NaN passes.

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
        """Return the gate with other bounds for the cosines and for the answers; None keeps a bound."""
        bounds = {"min_cosine": cosine, "mean_cosine": cosine, "top1_agreement": agreement}
        return dataclasses.replace(self, **{name: value for name, value in bounds.items() if value is not None})

    def failures(self, figures: Figures, speedup: float = np.inf) -> list[str]:
        """Describe each bound that is missed; empty if all hold."""
        measured = (
            at_least("cosine on the worst", figures.min_cosine, self.min_cosine),
            at_least("mean cosine", figures.mean_cosine, self.mean_cosine),
            at_least("share with the same answer", figures.top1_agreement, self.top1_agreement),
            at_least("times as fast", speedup, self.speedup),
        )
        return reasons(measured)


GATES = {
    "fp16": Gate(min_cosine=0.9999, mean_cosine=0.9999, top1_agreement=0.995),
    "int8": Gate(min_cosine=0.97, mean_cosine=0.99, top1_agreement=0.98, speedup=1.0),
}
"""By precision, for both encoders. float16 is kept for its size and for GPUs, INT8 only where it is no slower."""


NEAR_TIE = 0.02
"""Two classes whose scores differ by less are nearly equal."""


def image_logits(bundle: Bundle) -> Logits:
    """Return a function from image rows to logits, with the bundle's head if it has one."""
    classifier = Classifier(bundle, device="cpu")
    return functools.partial(classifier.logits, classes=classifier.class_set())


def near_ties(bundle: Bundle, rows: Floats, reference: Floats) -> tuple[int, int]:
    """Count the images that get another answer, and those among them with two nearly equal classes in float32.

    Args:
        bundle: the bundle that answers.
        rows: (N, D) of a smaller graph.
        reference: (N, D) of the float32 graph.
    """
    classifier = Classifier(bundle, device="cpu")
    classes, logits = classifier.class_set(), image_logits(bundle)
    other = reference[~same_answer(rows, reference, logits)]
    pieces = (other[start : start + BATCH] for start in range(0, len(other), BATCH))
    scores = (np.sort(classifier.scores(logits(piece), classes), axis=1) for piece in pieces)
    return len(other), sum(int((piece[:, -1] - piece[:, -2] < NEAR_TIE).sum()) for piece in scores)
