"""Fit the class model by cross-validation over classes, and measure what it can do there.

All rankings of the `folds` together are one likelihood of the weights. Rounds of folds are added until the weights are
stable; the same rankings give the threshold of *unknown*, the prediction sets and the expected accuracies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.class_model import folds
from sar_infer.class_model.model import (
    RANK,
    USUAL,
    USUAL_UNKNOWN,
    ClassModel,
    Doubles,
    Flags,
    Gaussian,
    Labels,
    Rivals,
    far_axes,
    far_length,
    gaussian,
    low_rank,
)
from sar_infer.class_model.weights import likeliest, powers
from sar_infer.measures import COVERAGES, USUAL_ALARMS, auroc, conformal, threshold_for, upper_limit

_CLASS_PHOTOS = 4.0
"""Independent photos that those of a class count as, since they are alike."""
_MOVED = 2e-4
"""Nats by which the last half of the folds may change the predictions on average."""
_ROUNDS, _CELLS = 32, 2**23
"""Limits of the folds: rounds, and numbers that are held."""
_SHARES, _LOST = (0.0, 0.2, 1.0), 0.01
"""Shares of the distance of *unknown*, and AUROC that it may cost in the folds, as where many classes are alike."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Result of `fit`.

    Attributes:
        model: The class model.
        rounds: Times that every class was held out; 0 if the weights are `USUAL`.
        moved: Nats by which the last half of these changed the predictions on average.
        scores: (C,) accuracy (0 to 1) on each class, held out and not, names count half; by these prompts are compared.
        why: Why nothing was cross-validated; None if it was.
        auroc: Chance (0 to 1) that an unknown image of the folds is called so more than one of a known class; NaN, as
            the two shares, where none was left out.
        false_alarms: Share of the images of known classes that are above the threshold.
        rejected: Share of the unknown ones.
    """

    model: ClassModel
    rounds: int
    moved: float
    scores: Doubles
    why: str | None = None
    auroc: float = np.nan
    false_alarms: float = np.nan
    rejected: float = np.nan


def fit(
    rows: npt.NDArray[Any],
    labels: Labels,
    texts: npt.NDArray[Any],
    scale: float,
    *,
    named: Flags | None = None,
    rivals: Rivals | None = None,
    in_halves: Sequence[npt.NDArray[Any]] = (),
    seed: int = 0,
) -> Fitted:
    """Fit a class model to photos.

    Args:
        rows: (N, D) unit features, at least one of each class.
        labels: (N,) 0 to C - 1.
        texts: (C, D) unit text rows.
        scale: s, the logit scale.
        named: (C,) False for classes whose text row means nothing; None for none.
        rivals: Classes that compete in every ranking.
        in_halves: (C, D) text rows under the prompt trained again on each of `halves`; empty if the prompt has seen no
            photo of these classes, so that ``texts`` hold in every fold.
        seed: Of folds and halves.
    """
    rows, texts = rows.astype(np.float64), texts.astype(np.float64)
    flags = np.ones(len(texts), np.bool_) if named is None else named
    closed = gaussian(rows, labels, texts, flags, rivals=rivals)
    absent = len(texts) // 4 if len(in_halves) else 0  # of a half, only half is held out at a time
    rivals_of_each = len(texts) - absent - 1 + (0 if rivals is None else len(rivals.texts))
    spread = float(np.trace(np.linalg.inv(closed.precision))) if closed.photos > 1 else 0.0
    usual = folds.usual_distance(closed, rows, labels, rows.shape[1])
    model, size = _model(closed, scale, rivals_of_each), rows.shape[1]
    in_short = [half.astype(np.float64) for half in in_halves]
    if not in_short:
        rows, texts, rivals = folds.in_span(rows, texts, rivals)
    if (why := folds.obstacle(labels, len(texts))) is not None:
        unknown, share = _left_out(rows, labels, texts, flags, scale, size, rivals)
        model = _far(dataclasses.replace(model, unknown=unknown), share, usual)
        return Fitted(model, 0, 0.0, np.zeros(len(texts)), why)
    shared = folds.Folds(rows, texts, rivals, labels, flags, scale, in_short, size, spread, seed)
    tasks: list[folds.Task] = []
    weights, moved, rounds, target = np.array(USUAL), np.inf, 0, 2
    effective = _CLASS_PHOTOS * len(texts)
    while True:
        tasks += folds.merged([task for number in range(rounds, target) for task in shared.tasks(number)])
        rounds = target
        before = weights
        weights, curve = likeliest(tasks, effective, weights)
        moved = float((weights - before) @ curve @ (weights - before)) / 2 / effective
        if rounds > 2 and (moved < _MOVED or rounds >= _ROUNDS or 2 * sum(t.terms[0].size for t in tasks) > _CELLS):
            break
        target = 2 * rounds
    model = _far(dataclasses.replace(model, weights=weights), share_of(weights, tasks), usual)
    return _measured(model, tasks, np.bincount(labels), rounds, moved)


def share_of(weights: Doubles, tasks: Sequence[folds.Task]) -> float:
    """Return the largest share of the distance of *unknown* that costs images of absent classes at most `_LOST`."""
    images = np.concatenate([task.images for task in tasks])
    absent = images["side"] == folds.ABSENT
    if weights[0] <= 0 or not absent.any():
        return 0.0
    odds = np.concatenate([_odds(powers(task, weights)) for task in tasks])
    strange = [odds + weights[0] * share * images["far"] for share in _SHARES]
    areas = [auroc(values[absent], values[~absent]) for values in strange]
    return max(share for share, area in zip(_SHARES, areas, strict=True) if area >= areas[0] - _LOST)


def _odds(shares: npt.NDArray[np.float32]) -> Doubles:
    """Return the log-odds (N,) of *unknown*, given powers (N, C + 1) of scores."""
    values = np.maximum(shares.astype(np.float64), 1e-300)
    result: Doubles = np.log(values[:, -1]) - np.log(values[:, :-1].sum(axis=1))
    return result


def _probability(odds: Any) -> Any:
    return (1 + np.tanh(odds / 2)) / 2


def _far(model: ClassModel, share: float, usual: float) -> ClassModel:
    """Return the model with a share of the distance of *unknown*, n̄ being ``usual``."""
    if not share:
        return model
    if model.level:
        rest = far_length(model.level, model.factor)
        axes = far_axes(model.level, model.factor, share, rest / usual)
    else:
        values, vectors = np.linalg.eigh(model.precision.astype(np.float64))
        rank = min(RANK, len(values) - 1)
        rest = float(values[rank:].mean())
        scale = np.sqrt(np.maximum(rest - values[:rank], 0.0) / usual)
        axes = (vectors[:, :rank] * scale).astype(np.float16)
    return dataclasses.replace(model, share=share, length=rest / usual, axes=axes)


def _left_out(
    rows: Doubles, labels: Labels, texts: Doubles, named: Flags, scale: float, size: int, rivals: Rivals | None
) -> tuple[Doubles, float]:
    """Return the threshold of *unknown* of few classes, from photos left out in turn, and a share of its distance.

    The class of a photo left out has one photo fewer than it will have, which its score is corrected for.
    """
    counts = np.bincount(labels, minlength=len(texts))
    odds: list[float] = []
    for number in np.flatnonzero(counts[labels] > 1).tolist():
        keep = np.arange(len(rows)) != number
        closed = gaussian(rows[keep], labels[keep], texts, named, rivals=rivals, size=size)
        sums = np.array([(rows[keep & (labels == c)] - closed.centre).sum(0) for c in range(len(texts))])
        columns = folds.columns_of(closed, sums, np.bincount(labels[keep], minlength=len(texts)), texts, named)
        image, usual = rows[number : number + 1], folds.usual_distance(closed, rows[keep], labels[keep], size)
        terms = folds.terms_of(closed, image, columns, scale, size)[:, 0].astype(np.float64)
        scores, far = np.array(USUAL[:3]) @ terms, folds.gain_of(closed, image, usual, size)
        photos = counts[labels[number]] + closed.prior
        fewer = (USUAL[0] - USUAL[1]) * size * (1 / (photos - 1) - 1 / photos) / 2
        odds.append(scores[-1] + USUAL[3] + USUAL[0] * far[0] - np.logaddexp.reduce(scores[:-1]) - fewer)
    if not odds:
        return np.array([[0.0, USUAL_UNKNOWN]]), 0.0
    return np.array([[0.0, _probability(upper_limit(np.array(odds)))]]), 1.0


def reworded(
    model: ClassModel,
    rows: npt.NDArray[Any],
    labels: Labels,
    texts: npt.NDArray[Any],
    *,
    named: Flags | None = None,
    rivals: Rivals | None = None,
) -> ClassModel:
    """Return the closed forms of some photos and text rows, with the weights of another model and what it measured.

    Args:
        model: The other, such as that of the same classes with other text rows, or with fewer photos.
        rows: (N, D) unit features, at least one of each class.
        labels: (N,) 0 to C - 1.
        texts: (C, D) unit text rows.
        named: (C,) False for classes whose text row means nothing; None for none.
        rivals: As of `fit`.
    """
    rows, texts = rows.astype(np.float64), texts.astype(np.float64)
    flags = np.ones(len(texts), np.bool_) if named is None else named
    closed = gaussian(rows, labels, texts, flags, rivals=rivals)
    names = ("weights", "unknown", "sets", "expected")
    measured = {name: getattr(model, name) for name in names}
    fresh = dataclasses.replace(_model(closed, model.scale, model.rivals), **measured)
    return _far(fresh, model.share, folds.usual_distance(closed, rows, labels, rows.shape[1]))


def _model(closed: Gaussian, scale: float, rivals_of_each: float) -> ClassModel:
    size, full = len(closed.centre), closed.photos > len(closed.centre)
    level, factor = (0.0, closed.precision.astype(np.float32)) if full else low_rank(closed.precision)
    centres = closed.centre.astype(np.float32), closed.text_centre.astype(np.float32)
    numbers = closed.slope, closed.prior, closed.broad, scale, float(closed.photos)
    model = ClassModel(level, factor, *centres, *numbers, np.empty((size, 0), np.float16))
    return dataclasses.replace(model, unknown=np.array([[0.0, USUAL_UNKNOWN]]), rivals=float(rivals_of_each))


def _measured(model: ClassModel, tasks: Sequence[folds.Task], counts: Labels, rounds: int, moved: float) -> Fitted:
    """Return the model with all that the rankings under its weights show."""
    columns: list[tuple[Any, ...]] = []
    for task in tasks:
        shares = powers(task, model.weights)
        strange, named = _odds(shares) + model.weights[0] * model.share * task.images["far"], shares[:, :-1]
        rivals = named.shape[1] - 1
        own = named[np.arange(len(named)), np.minimum(task.images["truth"], rivals)]
        above, share = (named > own[:, None]).sum(axis=1), own / np.maximum(named.sum(axis=1), 1e-30)
        right = _among_fewer(rivals, np.array([rivals, (rivals + 1) // 2]))[:, above]
        columns.append((task.images, strange, share, *right))
    images, strange, own, right, half = map(np.concatenate, zip(*columns, strict=True))
    labels, side, photos, plain, mass = (images[name] for name in ("label", "side", "photos", "plain", "weight"))

    def by_class(right: Doubles, flags: Flags) -> Any:
        """Return the mean (C,) over some images of each class, masked where there are none."""
        visits = np.bincount(labels[flags], minlength=len(counts)).astype(np.float64)
        return np.ma.masked_array(np.bincount(labels[flags], right[flags], len(counts)), visits == 0) / visits

    usual, independent = max(float(np.median(counts)), max(folds.PHOTOS) + 1.0), _CLASS_PHOTOS * len(counts)
    returned = [(float(n), plain & (side == folds.RETURNED) & (photos == n)) for n in folds.PHOTOS]
    returned = [(n, flags) for n, flags in returned if flags.any()]
    every = [*returned, (usual, plain & (side == folds.STAYED))]
    sets = [(n, *(conformal(own[flags], c, independent) for c in COVERAGES)) for n, flags in every]
    unknown = [(n, _probability(threshold_for(strange[flags], USUAL_ALARMS))) for n, flags in every]
    expected, scores = [], []
    for n, flags in returned:
        stayed = by_class(right, plain & (side == folds.STAYED) & (photos == n))
        full, fewer = by_class(right, flags), by_class(half, flags)
        expected.append((n, float(stayed.mean()), _extrapolated(float(full.mean()), float(fewer.mean()), model.rivals)))
        scores.append(np.ma.stack([stayed, full]).mean(axis=0))
    by_photos = [scores[0], *([np.ma.stack(scores[1:]).mean(axis=0)] if scores[1:] else [])]
    model = dataclasses.replace(model, unknown=np.array(unknown), sets=np.array(sets), expected=np.array(expected))
    fitted = Fitted(model, rounds, moved, np.ma.stack(by_photos).mean(axis=0).filled(0.0))
    absent = side == folds.ABSENT
    if not absent.any():  # too few classes for one to be left out
        return fitted
    called = _probability(strange) > model.unknown_threshold(np.where(side == folds.STAYED, usual, photos))
    alarms, rejected = (float(mass[flags & called].sum() / mass[flags].sum()) for flags in (~absent, absent))
    return dataclasses.replace(
        fitted, auroc=auroc(strange[absent], strange[~absent]), false_alarms=alarms, rejected=rejected
    )


def _among_fewer(rivals: int, numbers: Labels) -> Doubles:
    """Return the chance (K, R + 1) that an image which 0 to R of R rivals beat is right among K numbers of them."""
    ratios = 1 - numbers[:, None] / np.arange(rivals, 0, -1)
    return np.cumprod(np.append(np.ones((len(numbers), 1)), np.maximum(ratios, 0.0), axis=1), axis=1)


def _extrapolated(whole: float, half: float, rivals: float) -> float:
    """Return the accuracy among twice as many rivals, given those among all and half of them.

    The log-odds are taken as linear in the logarithm of their number.
    """
    all_odds, half_odds = (np.log(share / (1 - share)) for share in np.clip([whole, half], 1e-3, 1 - 1e-3))
    steps = np.log(2) / np.log(rivals / ((rivals + 1) // 2))
    return float(1 / (1 + np.exp((half_odds - all_odds) * steps - all_odds)))
