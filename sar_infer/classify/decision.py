"""From ranked classes to an answer: known or unknown, a set of stated coverage, and the reasons for it.

Unknown by the best score, or by the energy (Liu et al., Energy-based Out-of-distribution Detection, arXiv 2010.03759).
A set holds every class whose score is at least a quantile of held-out photos: split conformal prediction with the score
``1 - p`` (Sadinle, Lei and Wasserman, arXiv 1609.00451), so that the true class is in it as often as was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.artefact.manifest import Manifest
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.ranking import Ranking, Scale
from sar_infer.encoders.scoring import finite
from sar_infer.errors import BankError, InputError
from sar_infer.results import PLAIN, DecisionOptions, Explanation, ImageResult, Prediction

_NEAREST = 3
_LARGEST_COSINE = 1.01
"""No two unit rows have more, in any precision."""
_GIVE_ONE = "give a threshold (--threshold X), or leave unknown out"
_CALIBRATE = "train with 50 or more held-out photos (docs/confidence.md), or leave coverage out"
_NO_LIMIT = "cannot be told: no threshold for this class"


class Decision:
    """Answers for image rows, for one set of classes; made once for many pictures.

    Args:
        manifest: Of the bundle.
        classes: Of the call.
        top_k: How many classes to return for each picture, at most.
        judging: What to tell beside them.

    Raises:
        InputError: ``top_k`` is below 1, or what ``judging`` asks for cannot be had of this bundle and these classes.
    """

    def __init__(self, manifest: Manifest, classes: ClassSet, top_k: int, judging: DecisionOptions = PLAIN) -> None:
        if top_k < 1:
            raise InputError(f"expected top_k of 1 or more, got {top_k}")
        if classes.background is not None and bool(classes.background.all()):
            raise InputError("no class to choose from: there are only background classes")
        self._classes, self._top_k, self._judging = classes, top_k, judging
        self._scale = scale(manifest, classes)
        self._limit = _limit(manifest, classes, judging)
        self._least = None if judging.coverage is None else _least(manifest, classes, judging.coverage)
        self._wanted = max(top_k, 2 if judging.explain else 1, self._set_size())

    def __call__(self, rows: Floats) -> Iterator[ImageResult]:
        """One result, called ``image[i]``, for each of N unit rows (N, D).

        Raises:
            BundleError: a row is not finite.
            BankError: an embedding of the classes is not, or is so long that it drowns all others.
        """
        with np.errstate(all="ignore"):  # what comes of it is looked at
            found = _sound(ranking.rank(finite(rows, "image encoder"), self._classes, self._scale, self._wanted))
        near = ranking.nearest(self._classes, found.columns[:, 0].tolist(), _NEAREST) if self._judging.explain else None
        for row in range(len(rows)):
            predictions = self._predictions(found, row)
            unknown, reason = self._unknown(found, row)
            yield ImageResult(
                f"image[{row}]",
                predictions[: self._top_k],
                branch=self._classes.branch,
                unknown=unknown,
                reason=reason,
                label_set=self._label_set(predictions),
                explanation=None if near is None else self._explanation(found, row, predictions, near[row]),
            )

    def _set_size(self) -> int:
        """More classes than this cannot have a score that puts them into the set, since scores sum to 1."""
        if self._least is None:
            return 0
        count = len(self._classes.names)
        return count if self._least * count <= 1 else int(1 / self._least) + 1

    def _predictions(self, found: Ranking, row: int) -> tuple[Prediction, ...]:
        classes, calibrated = self._classes, self._classes.calibrated
        return tuple(
            Prediction(
                label=classes.names[column],
                score=float(found.scores[row, place]),
                logit=float(found.logits[row, place]),
                similarity=float(found.similarities[row, place]),
                source=classes.sources[column],
                calibrated=calibrated is not None and bool(calibrated[column]),
            )
            for place, column in enumerate(found.columns[row].tolist())
        )

    def _unknown(self, found: Ranking, row: int) -> tuple[bool | None, str | None]:
        """Whether the best class is not to be believed, and why; None where nobody asked or nothing can judge it."""
        rival = self._rival(found, row)
        if rival is not None:
            return True, f"background {rival!r} scores {found.rival_scores[row, 0]:.3f}, more than any class"
        if self._judging.unknown is None:
            return None, None
        column, score = int(found.columns[row, 0]), float(found.scores[row, 0])
        own = None if self._classes.thresholds is None else float(self._classes.thresholds[column])
        if own is not None and not math.isnan(own):
            below = score < own
            return below, f"score {score:.3f} is below {own:.3f}, the threshold of this class" if below else None
        if self._limit is None:
            return None, _NO_LIMIT
        if self._judging.unknown == "score":
            below = score < self._limit
            return below, f"score {score:.3f} is below {self._limit:.3f}" if below else None
        energy = -float(found.evidence[row])
        above = energy > self._limit
        return above, f"energy {energy:.3f} is above {self._limit:.3f}" if above else None

    def _rival(self, found: Ranking, row: int) -> str | None:
        """The background class that beats every other."""
        if not found.rivals.shape[1] or found.rival_scores[row, 0] <= found.scores[row, 0]:
            return None
        return self._classes.names[int(found.rivals[row, 0])]

    def _label_set(self, predictions: tuple[Prediction, ...]) -> tuple[str, ...] | None:
        least = self._least
        return None if least is None else tuple(p.label for p in predictions if p.score >= least)

    def _explanation(
        self, found: Ranking, row: int, predictions: tuple[Prediction, ...], near: list[tuple[int, float]]
    ) -> Explanation:
        second = predictions[1] if len(predictions) > 1 else None
        return Explanation(
            margin=None if second is None else predictions[0].score - second.score,
            runner_up=None if second is None else second.label,
            energy=-float(found.evidence[row]),
            nearest=tuple((self._classes.names[column], cosine) for column, cosine in near),
            background=self._rival(found, row),
        )


def _sound(found: Ranking) -> Ranking:
    """The same ranking, where it is one of unit rows: of a large bank that is mapped, nobody has looked at the rows."""
    if not np.isfinite(found.evidence).all() or (found.similarities > _LARGEST_COSINE).any():
        raise BankError("an embedding of the classes is no unit row; the bank is damaged: sar-bank verify BANK_FILE")
    return found


def calibration_holds(manifest: Manifest, classes: ClassSet) -> bool:
    """Whether these classes are answered in the way that was calibrated: with the head, where the bundle has one."""
    return manifest.head is None or classes.head is not None


def scale(manifest: Manifest, classes: ClassSet) -> Scale:
    """From cosines to scores; without a temperature, or where the call is answered in another way, it is 1."""
    known = manifest.temperature is not None and calibration_holds(manifest, classes)
    return Scale(manifest.logit_scale, manifest.logit_bias or 0.0, (manifest.temperature or 1.0) if known else 1.0)


def _limit(manifest: Manifest, classes: ClassSet, judging: DecisionOptions) -> float | None:
    """The threshold for all classes; None where there is none, and single classes or background can still tell."""
    if judging.unknown is None or judging.threshold is not None:
        return judging.threshold
    if calibration_holds(manifest, classes) and judging.unknown in manifest.thresholds:
        return manifest.thresholds[judging.unknown]
    if classes.thresholds is None and not _has_background(classes):
        why = "is calibrated for its head's classes alone" if manifest.thresholds else "was not calibrated"
        raise InputError(f"unknown by {judging.unknown}: this bundle {why}; {_GIVE_ONE}")
    return None


def _has_background(classes: ClassSet) -> bool:
    return classes.background is not None and bool(classes.background.any())


def _least(manifest: Manifest, classes: ClassSet, coverage: float) -> float:
    """The score that a class needs to be in the set."""
    known = manifest.conformal.get(f"{coverage:g}")
    if known is None:
        offered = ", ".join(manifest.conformal)
        raise InputError(
            f"coverage {coverage:g}: "
            + (f"this bundle has {offered}" if offered else f"this bundle was not calibrated; {_CALIBRATE}")
        )
    flags = classes.calibrated
    if flags is None or not flags.all() or len(classes.names) != len(manifest.calibrated):
        raise InputError(
            f"coverage {coverage:g}: holds for exactly the {len(manifest.calibrated)} classes that the bundle was "
            "calibrated on, with its own rows; ask for those alone"
        )
    if _has_background(classes):
        raise InputError(f"coverage {coverage:g}: a class is background, and those were calibrated as answers")
    return known
