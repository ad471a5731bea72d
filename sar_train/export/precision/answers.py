"""What rows are compared by beside their cosines: the answers that a bundle gives for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from sar_infer.artefact.bundle import Bundle
from sar_infer.classifier import Classifier
from sar_train.export.precision.batches import BATCH, Rows

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
    classes, logits = classifier.class_set(), image_logits(bundle)
    other = reference[best(reference, logits) != best(rows, logits)]
    scores = (np.sort(classifier.scores(logits(piece), classes), axis=1) for piece in _pieces(other))
    return len(other), sum(int((piece[:, -1] - piece[:, -2] < NEAR_TIE).sum()) for piece in scores)


def best(rows: Rows, logits: Logits) -> npt.NDArray[np.intp]:
    """The column that each of N rows chooses (N,); a few rows at a time, for a bank may have a million."""
    return np.concatenate([logits(piece).argmax(1) for piece in _pieces(rows)])


def _pieces(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
