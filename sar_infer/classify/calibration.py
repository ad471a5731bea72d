"""The calibration of a bank on labelled photos: a temperature, a threshold for unknown, and prediction sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import BankCalibration
from sar_infer.class_model.model import Doubles, Labels, log_probabilities
from sar_infer.measures import COVERAGES, USUAL_ALARMS, Share, calibration_error, conformal, threshold_for

LEAST_IMAGES = 50
"""Of fewer, nothing is fitted."""
FOLDS = 10
"""Parts in which it is measured: each with what the other nine give."""
_TEMPERATURES = np.exp(np.linspace(np.log(0.05), np.log(20), 241))


@dataclass(frozen=True)
class Calibrated:
    """A temperature that logits are divided by, the threshold for unknown, and what a class needs to be in a set."""

    temperature: float
    unknown: float
    least: tuple[float, ...]


def calibrate(
    logits: Floats, labels: Labels, others: Floats | None = None, false_alarms: float = USUAL_ALARMS
) -> tuple[Calibrated, dict[str, Any]]:
    """Calibrate on photos and measure in ten folds.

    Args:
        logits: (N, C + 1), the last column that of *unknown*.
        labels: (N,) 0 to C - 1, N of `LEAST_IMAGES` or more.
        others: (M, C + 1), of photos of no class, on which the threshold is measured.
        false_alarms: Share of the N photos that may be called unknown, 0 to 1.

    Returns:
        The calibration, and its effect on photos that it was not fitted on, in ten folds: their number (``photos``);
        ``accuracy``, 0 to 1; ``error_before`` and ``error_after``, the expected calibration error in 15 bins (Guo et
        al., arXiv 1706.04599) without and with it; ``called_unknown``, the share that it calls unknown; the number of
        photos of no class (``other_photos``), and the share of these that it calls unknown (``others_found``; None
        without any); for each of `COVERAGES` the share of prediction sets with the class (``coverage``), and their mean
        number of classes (``set_size``).
    """
    others = logits[:0] if others is None else others
    order = np.argsort(labels, kind="stable")
    scores, covered, sizes = np.zeros((2, len(labels))), np.zeros((3, len(labels))), np.zeros((3, len(labels)))
    strange = np.zeros(len(labels), np.bool_)
    for start in range(FOLDS):
        part = order[start::FOLDS]
        rest = np.setdiff1d(order, part)
        fitted = _fitted(logits[rest], labels[rest], false_alarms)
        unknown, shares = _shares(logits[part], fitted.temperature)
        scores[:, part] = _shares(logits[part], 1.0)[1].max(1), shares.max(1)
        strange[part] = unknown > fitted.unknown
        for number, least in enumerate(fitted.least):
            covered[number, part] = shares[np.arange(len(part)), labels[part]] >= least
            sizes[number, part] = (shares >= least).sum(1)
    right, fitted = logits[:, :-1].argmax(1) == labels, _fitted(logits, labels, false_alarms)
    rejected = _shares(others, fitted.temperature)[0] > fitted.unknown  # nothing was fitted to these
    return fitted, {
        "photos": len(labels),
        "accuracy": float(right.mean()),
        "error_before": calibration_error(scores[0], right),
        "error_after": calibration_error(scores[1], right),
        "called_unknown": float(strange.mean()),
        "other_photos": len(others),
        "others_found": float(rejected.mean()) if len(others) else None,
        "coverage": tuple(covered.mean(1).tolist()),
        "set_size": tuple(sizes.mean(1).tolist()),
    }


def _fitted(logits: Floats, labels: Labels, false_alarms: float) -> Calibrated:
    """Return the likeliest temperature, and the quantiles under it."""
    rows = np.arange(len(labels))
    likelihoods = [log_probabilities(logits[:, :-1] / t)[rows, labels].mean() for t in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmax(likelihoods))])
    unknown, shares = _shares(logits, temperature)
    own, limit = shares[rows, labels], threshold_for(unknown, false_alarms)
    return Calibrated(temperature, limit, tuple(conformal(own, share) for share in COVERAGES))


def _shares(logits: Floats, temperature: float) -> tuple[Doubles, Doubles]:
    """Return the probability of *unknown* (N,), and those of classes (N, C) if it is one of them."""
    unknown = np.exp(log_probabilities(logits / temperature)[:, -1])
    return unknown, np.exp(log_probabilities(logits[:, :-1] / temperature))


def calibration_lines(fitted: BankCalibration, file: str) -> list[str]:
    """Return what the calibration of a bank file does, as lines of text."""
    measured = fitted.measured
    pairs = zip(COVERAGES, measured["coverage"], measured["set_size"], strict=True)
    sets = ", ".join(f"{wanted:.0%}: {share:.1%} with {size:.1f} classes" for wanted, share, size in pairs)
    groups = [("photos of the classes called unknown", "photos", "called_unknown")]
    groups += [("other photos found", "other_photos", "others_found")] if measured["other_photos"] else []
    return [
        f"{file}: calibrated on {measured['photos']:,} photos; accuracy {measured['accuracy']:.1%}",
        f"temperature {fitted.temperature:.3f}; calibration error {measured['error_before']:.1%} before, "
        f"{measured['error_after']:.1%} after",
        f"prediction sets contain the class, measured in ten folds: {sets}",
        f"unknown above a probability of {fitted.unknown:.3f}, for {100 * measured['false_alarms']:g} % false alarms",
        *(
            f"{name}: {_share(measured['before'][key], measured[count])} before, "
            f"{_share(measured[key], measured[count])} after"
            for name, count, key in groups
        ),
    ]


def _share(share: float | None, of: int) -> str:
    return "no threshold" if share is None else str(Share.of_count(round(share * of), of))
