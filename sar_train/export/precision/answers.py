"""What rows are compared by beside their cosines: the answers that a bundle gives for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sar_infer.bundle import Bundle
from sar_infer.classifier import Classifier
from sar_train.export.precision.batches import Rows

Logits = Callable[[Rows], Rows]
"""(N, C) for unit rows (N, D)."""
NEAR_TIE = 0.02
"""Two classes whose scores differ by less are about as likely."""


def image_logits(bundle: Bundle) -> Logits:
    """Those of photos, with the bundle's head where it has one."""
    classifier = Classifier(bundle, device="cpu")
    classes = classifier.class_set()
    return lambda rows: classifier.logits(rows, classes)


def near_ties(bundle: Bundle, rows: Rows, reference: Rows) -> tuple[int, int]:
    """How many photos get another answer, and how many of these had two classes nearly level in float32.

    Args:
        bundle: what answers.
        rows: (N, D) of a smaller graph.
        reference: (N, D) of the float32 graph.
    """
    classifier = Classifier(bundle, device="cpu")
    classes = classifier.class_set()
    expected, found = (classifier.logits(r, classes) for r in (reference, rows))
    other = expected.argmax(1) != found.argmax(1)
    best = np.sort(classifier.scores(expected[other], classes), axis=1)[:, -2:]
    return int(other.sum()), int((best[:, -1] - best[:, 0] < NEAR_TIE).sum())
