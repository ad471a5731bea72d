"""Several classes in one image, or none: the image and its quarters are ranked, and a class counts where it is surest.

The probability of a class, *unknown* being one of the possibilities, is the largest of all crops. A class is one of the
image's labels if that is above a half, or above its own threshold. The threshold of *unknown* plays no part, and
background classes take their share but are never labels. The crop is a hint where to look, not a box around an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.ranking import Ranking
from sar_infer.errors import InputError
from sar_infer.images.preprocess import CROPS
from sar_infer.measures import Doubles

YES = 0.5
"""Probability above which a class without a threshold of its own is a label."""


class Surest(NamedTuple):
    """The best K classes of one image, the most probable first.

    Attributes:
        columns: (K,) positions in the class set, none of them background.
        scores: (K,) probabilities, *unknown* being one of the possibilities.
        logits: (K,) in that crop.
        crops: (K,) positions in `CROPS`.
        unknown: The smallest probability of *unknown* of all crops.
    """

    columns: Indices
    scores: Floats
    logits: Floats
    crops: Indices
    unknown: float


def least(classes: ClassSet) -> Doubles:
    """Return the probability (C,) above which each class is a label.

    Raises:
        InputError: No class model was fitted, so the probability of *unknown* means nothing.
    """
    if not classes.model.photos:
        raise InputError(
            "several: needs a fitted class model; fit one (sar-bank fit, or sar-bank create with photos of two classes)"
        )
    thresholds = np.full(len(classes.names), np.nan) if classes.thresholds is None else classes.thresholds
    return np.where(np.isnan(thresholds), YES, thresholds)


def surest(ranked: Ranking) -> Iterator[Surest]:
    """Yield the best classes of each image, from the ranking of the crops of all images, `CROPS` rows each."""
    scores = ranked.scores * (1 - ranked.unknown[:, np.newaxis])
    size = len(CROPS)
    for start in range(0, len(scores), size):
        of_crops = slice(start, start + size)
        columns, probabilities = ranked.columns[of_crops].ravel(), scores[of_crops].ravel()
        order = np.argsort(-probabilities, kind="stable")  # of equal ones the whole image
        best = order[np.sort(np.unique(columns[order], return_index=True)[1])]
        logits, unknown = ranked.logits[of_crops].ravel()[best], float(ranked.unknown[of_crops].min())
        yield Surest(columns[best], probabilities[best], logits, best // ranked.columns.shape[1], unknown)
