"""The calibration of scores: fitted on held-out images, and measured on others.

`sar_infer.classifiers.scores` has the functions on arrays that it is made of, with their sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sar_infer.bundle.manifest import Calibration
from sar_infer.classifiers.scores import (
    COVERAGES,
    KEPT,
    Doubles,
    Labels,
    auroc,
    conformal_threshold,
    energy,
    expected_calibration_error,
    fit_temperature,
    keeping,
    negative_log_likelihood,
    softmax,
    true_scores,
)

LEAST_IMAGES = 50
"""Of fewer, nothing is fitted; nine tenths of them still suffice for every one of ``COVERAGES``."""
FOLDS = 10
"""Parts that images are cross-fitted in."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out images: logits (N, C) as a bundle computes them, and labels (N,) 0 to C - 1.

    With class statistics also ``distances`` (N,) to the class that comes first.
    """

    logits: Doubles
    labels: Labels
    distances: Doubles | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: npt.NDArray[np.intp]) -> HeldOut:
        """Return some of the rows."""
        distances = None if self.distances is None else self.distances[rows]
        return HeldOut(self.logits[rows], self.labels[rows], distances)

    def with_more(self, others: HeldOut) -> HeldOut:
        """Return these rows and others."""
        distances = None
        if self.distances is not None and others.distances is not None:
            distances = np.concatenate([self.distances, others.distances])
        labels = np.concatenate([self.labels, others.labels])
        return HeldOut(np.concatenate([self.logits, others.logits]), labels, distances)


@dataclass(frozen=True)
class Fitted:
    """The numbers by which a bundle judges its own answers.

    Attributes:
        temperature: logits are divided by it; 1 where the one that was fitted made other images less likely.
        thresholds: least ``score``, largest ``energy`` and, with class statistics, ``distance`` of a known image.
        conformal: by coverage (``"0.9"``), the least score of a class in the set.
        measured: how well all of it holds on images that it was not fitted on.
        branch: what answered; None for a bank, whose classes say.
    """

    temperature: float
    thresholds: Mapping[str, float]
    conformal: Mapping[str, float]
    measured: Calibration
    branch: Literal["text", "statistics"] | None = None

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Fitted:
        """Read it from a record.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{**stored, "measured": Calibration(**stored["measured"])})


def not_calibrated(held_out: int | None, *, left_out: bool = False) -> str:
    """Return one line that says why scores are not calibrated on held-out photos.

    Args:
        held_out: images that it could be fitted on; None where an older record does not say.
        left_out: they are calibrated on classes left out in turn.
    """
    said = "scores are calibrated on classes left out alone" if left_out else "scores are not calibrated"
    if held_out is None:
        return said
    if held_out < LEAST_IMAGES:
        return f"{said}: {held_out} held-out photos of the trained classes, {LEAST_IMAGES} are needed"
    return f"{said}: no temperature can be told from {held_out} held-out photos of the trained classes"


@dataclass(frozen=True)
class _Rule:
    """The fitted numbers, which apply to the logits of any images."""

    temperature: float
    thresholds: Mapping[str, float]
    conformal: Mapping[str, float]

    @classmethod
    def fit(cls, held: HeldOut, temperature: float | None) -> _Rule | None:
        if temperature is None:
            temperature = fit_temperature(held.logits, held.labels)
        if temperature is None:
            return None
        probabilities = softmax(held.logits / temperature)
        distance = {} if held.distances is None else {"distance": -keeping(-held.distances, KEPT)}
        return cls(
            temperature,
            {
                "score": keeping(probabilities.max(axis=1), KEPT),
                "energy": -keeping(-energy(held.logits, temperature), KEPT),
                **distance,
            },
            {f"{c:g}": conformal_threshold(true_scores(probabilities, held.labels), c) for c in COVERAGES},
        )

    def probabilities(self, held: HeldOut) -> Doubles:
        return softmax(held.logits / self.temperature)

    def set_sizes(self, held: HeldOut) -> dict[str, Doubles]:
        """Return (N,) the number of classes in the set of each image, by coverage."""
        probabilities = self.probabilities(held)
        return {key: (probabilities >= least).sum(axis=1).astype(np.float64) for key, least in self.conformal.items()}

    def covered(self, held: HeldOut) -> dict[str, Doubles]:
        """Return (N,) 1 where the set of an image holds its class, by coverage."""
        scores = true_scores(self.probabilities(held), held.labels)
        return {key: (scores >= least).astype(np.float64) for key, least in self.conformal.items()}

    def familiarity(self, logits: Doubles) -> dict[str, Doubles]:
        """Return (N,) values that tell known from unknown images: the larger, the more known."""
        return {
            "score": softmax(logits / self.temperature).max(axis=1),
            "energy": -energy(logits, self.temperature),
        }


def calibrate(
    dataset: str, held: HeldOut, others: HeldOut | None = None, unknown: Doubles | None = None
) -> Fitted | None:
    """Fit on some images and measure on others; None where there are too few, or no temperature can be fitted.

    Args:
        dataset: whose images.
        held: to fit on.
        others: to measure on. None cross-fits: each tenth of ``held`` is measured with what the rest gives, and
            what is returned is fitted on all of them.
        unknown: (M, C) logits of images of other classes, against the same C classes.
    """
    if len(held) < LEAST_IMAGES or (others is not None and not len(others)):
        return None
    fitted = _fitted(dataset, held, others, unknown)
    if fitted is None or fitted.measured.nll_after <= fitted.measured.nll_before:
        return fitted
    return _fitted(dataset, held, others, unknown, temperature=1.0)


def _fitted(
    dataset: str, held: HeldOut, others: HeldOut | None, unknown: Doubles | None, temperature: float | None = None
) -> Fitted | None:
    """Fit and measure as `calibrate` does; a given ``temperature`` replaces the fitted one."""
    rule = _Rule.fit(held, temperature)
    folds = [(rule, others)] if others is not None else _crossed(held, temperature)
    sound = [(rule, subset) for rule, subset in folds if rule is not None]
    if rule is None or len(sound) < len(folds):
        return None
    measured = _measure(dataset, len(held), sound, unknown, cross_fitted=others is None)
    return Fitted(rule.temperature, rule.thresholds, rule.conformal, measured)


def _crossed(held: HeldOut, temperature: float | None) -> list[tuple[_Rule | None, HeldOut]]:
    """Return each tenth of the images, spread evenly over the classes, with the rule fitted on the other nine.

    Rules of nine tenths are nearly the one that ships; those of halves are not: few images give wide sets.
    """
    order = np.argsort(held.labels, kind="stable")
    parts = [order[start::FOLDS] for start in range(FOLDS)]
    return [(_Rule.fit(held.subset(np.setdiff1d(order, subset)), temperature), held.subset(subset)) for subset in parts]


def _measure(
    dataset: str, fitted_on: int, folds: list[tuple[_Rule, HeldOut]], unknown: Doubles | None, *, cross_fitted: bool
) -> Calibration:
    """Measure over the images of all folds, each evaluated by the rule of its fold."""
    labels = np.concatenate([held.labels for _, held in folds])
    before = np.concatenate([softmax(held.logits) for _, held in folds])
    after = np.concatenate([rule.probabilities(held) for rule, held in folds])
    covered, sizes = [r.covered(p) for r, p in folds], [r.set_sizes(p) for r, p in folds]
    aurocs: dict[str, float] = {}
    if unknown is not None and len(unknown):
        pairs = [(rule.familiarity(held.logits), rule.familiarity(unknown)) for rule, held in folds]
        aurocs = {kind: float(np.mean([auroc(a[kind], b[kind]) for a, b in pairs])) for kind in ("score", "energy")}
    return Calibration(
        dataset=dataset,
        fitted_on=fitted_on,
        measured_on=len(labels),
        cross_fitted=cross_fitted,
        error_before=expected_calibration_error(before, labels),
        error_after=expected_calibration_error(after, labels),
        nll_before=negative_log_likelihood(before, labels),
        nll_after=negative_log_likelihood(after, labels),
        coverage={key: float(np.concatenate([fold[key] for fold in covered]).mean()) for key in covered[0]},
        set_size={key: float(np.concatenate([fold[key] for fold in sizes]).mean()) for key in sizes[0]},
        unknown_auroc=aurocs,
    )
