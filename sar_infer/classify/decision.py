"""From ranked classes to a result: known or unknown, a set of stated coverage, and the reasons.

An image is unknown by its best score, by its energy (Liu et al., Energy-based Out-of-distribution Detection, arXiv
2010.03759), or by its squared distance to the mean of the best class under the class statistics (Lee et al., A Simple
Unified Framework for Detecting Out-of-Distribution Samples, arXiv 1807.03888). A set holds each class whose score is at
least a quantile of held-out photos: split conformal prediction with the score ``1 - p`` (Sadinle, Lei and Wasserman,
arXiv 1609.00451), so that it holds the true class as often as was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank.learned import BankCalibration
from sar_infer.bundle.manifest import Manifest
from sar_infer.classifiers.scores import COVERAGES, Doubles
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet
from sar_infer.classify.ranking import Ranking, Scale
from sar_infer.encoders.encoders import finite
from sar_infer.errors import InputError
from sar_infer.results import PLAIN, Branch, DecisionOptions, Explanation, ImageResult, Prediction

BRANCHES: dict[Branch, Literal["text", "statistics"]] = {"text": "text", "text+statistics": "statistics"}
"""Values of ``Manifest.calibrated_for`` by branch of the results."""
Sign = Literal["score", "energy", "distance"]
"""Values of ``DecisionOptions.unknown`` but ``auto``, which stands for one of them."""
_NEAREST = 3
_GIVE_ONE = "set a threshold (over HTTP: one of each class, with sar-bank set), or leave unknown out"
_CALIBRATE = "train with 50 or more held-out photos, or sar-bank calibrate (docs/confidence.md)"
_NO_LIMIT = "cannot be told: no threshold for this class"


class Decision:
    """Makes the results of image rows for one set of classes; it is built once for any number of images.

    Args:
        manifest: The manifest of the bundle.
        classes: The classes of the call.
        top_k: Number of classes to return for each image, at most.
        options: What to tell beside them.

    Attributes:
        branch: The branches that answer, which are the same for all images.

    Raises:
        InputError: ``top_k`` is below 1, or this bundle or these classes do not have what ``options`` ask for.
    """

    def __init__(self, manifest: Manifest, classes: ClassSet, top_k: int, options: DecisionOptions = PLAIN) -> None:
        if top_k < 1:
            raise InputError(f"expected top_k of 1 or more, got {top_k}")
        if classes.background is not None and bool(classes.background.all()):
            raise InputError("no class to choose from: there are only background classes")
        self._classes, self._top_k, self._options = classes, top_k, options
        self._scale = scale(manifest, classes)
        self._sign = _sign(manifest, classes, options)
        self._limit = _limit(manifest, classes, self._sign, options.threshold)
        self._least = None if options.coverage is None else _least(manifest, classes, options.coverage)
        self.branch = classes.branch
        self._rank_count = max(top_k, 2 if options.explain else 1, self._set_size())

    def __call__(self, rows: Floats, names: Sequence[str] | None = None) -> Iterator[ImageResult]:
        """Yield the result of each of N unit rows (N, D).

        Args:
            rows: The image embeddings.
            names: The names of the N images; by default ``image[i]``.

        Raises:
            BundleError: a row is not finite.
        """
        with np.errstate(all="ignore"):  # the outcome is checked instead
            ranked = ranking.rank(finite(rows, "image encoder"), self._classes, self._scale, self._rank_count)
        least = self._least
        near = (
            ranking.nearest(self._classes, ranked.columns[:, 0].tolist(), _NEAREST) if self._options.explain else None
        )
        distances = None
        if self._sign == "distance" and self._classes.terms is not None:
            best = ranked.columns[:, 0]
            distances = self._classes.terms.distances(rows, best, self._classes.rows(best))
        for row in range(len(rows)):
            predictions = self._predictions(ranked, row)
            unknown, reason = self._unknown(ranked, row, distances)
            yield ImageResult(
                f"image[{row}]" if names is None else names[row],
                predictions[: self._top_k],
                branch=self.branch,
                unknown=unknown,
                reason=reason,
                label_set=None if least is None else self._label_set(ranked, row, least),
                explanation=None if near is None else self._explanation(ranked, row, predictions, near[row]),
            )

    def _set_size(self) -> int:
        """Return the largest number of classes that a set can hold, since scores sum to 1."""
        if self._least is None:
            return 0
        count, least = len(self._classes.names), float(self._least.min())
        return count if least * count <= 1 else int(1 / least) + 1

    def _label_set(self, ranked: Ranking, row: int, least: Doubles) -> tuple[str, ...]:
        """Return the classes whose scores are at least those (C,) that they need."""
        pairs = zip(ranked.columns[row].tolist(), ranked.scores[row].tolist(), strict=True)
        return tuple(self._classes.names[column] for column, score in pairs if score >= least[column])

    def _predictions(self, ranked: Ranking, row: int) -> tuple[Prediction, ...]:
        classes = self._classes
        best = (ranked.columns, ranked.scores, ranked.logits, ranked.similarities)
        return tuple(
            Prediction(
                label=classes.names[column],
                score=score,
                logit=logit,
                similarity=similarity,
                source=classes.source(column),
                calibration=classes.calibration_of(column),
            )
            for column, score, logit, similarity in zip(*(values[row].tolist() for values in best), strict=True)
        )

    def _unknown(self, ranked: Ranking, row: int, distances: Doubles | None) -> tuple[bool | None, str | None]:
        """Return True and the reason if the best class is not to be believed; None if it is not asked or unclear."""
        background = self._winning_background(ranked, row)
        if background is not None:
            score = float(ranked.best_background_scores[row, 0])
            return True, f"background {background!r} scores {score:.3f}, more than any class"
        if self._sign is None:
            return None, None
        column, score = int(ranked.columns[row, 0]), float(ranked.scores[row, 0])
        threshold = None if self._classes.thresholds is None else float(self._classes.thresholds[column])
        if threshold is not None and not math.isnan(threshold):
            below = score < threshold
            return below, f"score {score:.3f} is below {threshold:.3f}, the threshold of this class" if below else None
        if self._limit is None:
            return None, _NO_LIMIT
        if distances is not None:
            far = bool(distances[row] > self._limit)
            return far, f"distance {distances[row]:.1f} is above {self._limit:.1f}" if far else None
        if self._sign == "score":
            below = score < self._limit
            return below, f"score {score:.3f} is below {self._limit:.3f}" if below else None
        energy = -float(ranked.logsumexp[row])
        above = energy > self._limit
        return above, f"energy {energy:.3f} is above {self._limit:.3f}" if above else None

    def _winning_background(self, ranked: Ranking, row: int) -> str | None:
        """Return the name of the background class that scores more than every other class, if one does."""
        if not ranked.best_background.shape[1] or ranked.best_background_scores[row, 0] <= ranked.scores[row, 0]:
            return None
        return self._classes.names[int(ranked.best_background[row, 0])]

    def _explanation(
        self, ranked: Ranking, row: int, predictions: tuple[Prediction, ...], near: list[tuple[int, float]]
    ) -> Explanation:
        second = predictions[1] if len(predictions) > 1 else None
        return Explanation(
            margin=None if second is None else predictions[0].score - second.score,
            runner_up=None if second is None else second.label,
            energy=-float(ranked.logsumexp[row]),
            nearest=tuple((self._classes.names[column], cosine) for column, cosine in near),
            background=self._winning_background(ranked, row),
        )


def calibration_holds(manifest: Manifest, classes: ClassSet) -> bool:
    """Return True if these classes are answered as in calibration: by the branch that it was fitted for."""
    return manifest.calibrated_for == BRANCHES[classes.branch] and not classes.shifted


def scale(manifest: Manifest, classes: ClassSet) -> Scale:
    """Return the scale of these classes; its temperature is 1 unless a calibration holds for them."""
    fitted = _fitted(manifest, classes) if classes.confidence is None else classes.confidence
    temperature = None if fitted is None else fitted.temperature
    return Scale(manifest.logit_scale, manifest.logit_bias or 0.0, temperature or 1.0)


def _thresholds(manifest: Manifest, classes: ClassSet) -> Mapping[str, float]:
    """Return the thresholds for unknown images of these classes; empty if none holds for them."""
    fitted = _fitted(manifest, classes)
    thresholds = {} if fitted is None else fitted.thresholds
    if classes.confidence is not None:
        thresholds = classes.confidence.thresholds(len(classes.names))
    by_left_out = classes.terms and classes.terms.statistics.confidence
    if by_left_out and math.isfinite(by_left_out.distance):
        return {"distance": by_left_out.distance, **thresholds}
    return thresholds


def _fitted(manifest: Manifest, classes: ClassSet) -> Manifest | BankCalibration | None:
    """Return what holds the calibration of these classes: their bank, else the bundle; None if none holds."""
    if classes.calibration is not None:
        return classes.calibration
    return manifest if calibration_holds(manifest, classes) else None


def _sign(manifest: Manifest, classes: ClassSet, options: DecisionOptions) -> Sign | None:
    """Return what tells unknown images.

    Raises:
        InputError: It is the distance, and no statistics say what is far.
    """
    if options.unknown == "auto":
        return "score" if options.threshold is not None else usual_sign(manifest, classes)
    if options.unknown == "distance" and not has_distances(classes):
        raise InputError("unknown by distance: these classes have no class statistics; take the score or the energy")
    return options.unknown


def usual_sign(manifest: Manifest, classes: ClassSet) -> Sign:
    """Return what tells unknown images of these classes: the distance if its threshold is known, else the score."""
    return "distance" if "distance" in _thresholds(manifest, classes) and has_distances(classes) else "score"


def has_distances(classes: ClassSet) -> bool:
    """Return True if statistics were fitted that say how far an image lies from its class."""
    return classes.terms is not None and bool(classes.terms.statistics.centre.any())


def _limit(manifest: Manifest, classes: ClassSet, sign: Sign | None, threshold: float | None) -> float | None:
    """Return the threshold for all classes; None if only thresholds of single classes, or background, can tell."""
    if sign is None or threshold is not None:
        return threshold
    thresholds = _thresholds(manifest, classes)
    if sign in thresholds:
        return thresholds[sign]
    if sign not in judged_by(manifest, classes):
        why = f"was not calibrated; {_CALIBRATE}, or"
        if manifest.thresholds:
            why = f"is calibrated for its {manifest.calibrated_for} branch, at its own offset;"
        raise InputError(f"unknown by {sign}: this bundle {why} {_GIVE_ONE}")
    return None


def judged_by(manifest: Manifest, classes: ClassSet) -> list[Sign]:
    """Return the signs by which an unknown image of these classes can be told without a threshold of the caller's."""
    thresholds = _thresholds(manifest, classes)
    anyway = classes.thresholds is not None or _has_background(classes)
    signs = [sign for sign in get_args(Sign) if sign != "distance" or has_distances(classes)]
    return [sign for sign in signs if anyway or sign in thresholds]


def _has_background(classes: ClassSet) -> bool:
    return classes.background is not None and bool(classes.background.any())


def _least(manifest: Manifest, classes: ClassSet, coverage: float) -> Doubles:
    """Return the score (C,) that each class needs to be in the set."""
    if classes.confidence is not None:
        least = classes.confidence.least(coverage, classes.photos)
        if least is None:
            raise InputError(f"coverage {coverage:g}: this was calibrated for {', '.join(map(str, COVERAGES))}")
        if _has_background(classes):
            raise InputError(f"coverage {coverage:g}: a class is background, and no such class was left out in turn")
        return least
    fitted = _fitted(manifest, classes) or manifest
    threshold = fitted.conformal.get(f"{coverage:g}")
    if threshold is None:
        why = f"was not calibrated; {_CALIBRATE}, or leave coverage out"
        if fitted.conformal:
            why = f"has {', '.join(fitted.conformal)}"
        raise InputError(f"coverage {coverage:g}: this bundle {why}")
    flags = classes.calibrated
    if flags is None and classes.calibration is not None:
        raise InputError(
            f"coverage {coverage:g}: the bank has changed since it was calibrated; sar-bank calibrate, or leave "
            "coverage out"
        )
    if flags is None or not flags.all() or len(classes.names) != len(fitted.calibrated):
        raise InputError(
            f"coverage {coverage:g}: holds for exactly the {len(fitted.calibrated)} classes that it was "
            "calibrated on, with the rows they had; ask for those alone"
        )
    if _has_background(classes):
        raise InputError(f"coverage {coverage:g}: a class is background, and those were calibrated as answers")
    return np.full(len(classes.names), threshold)
