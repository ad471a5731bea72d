"""Fit the class model: weights, threshold for unknown and prediction sets, by cross-validation over classes.

Classes are held out a third at a time, and return with 0, 1, 2, 4 or 8 photos, without their name, or not at all: then
their images are unknown ones. They are ranked among the classes that stayed, whose images were held out too, and
rivals without photos. All rankings together are one likelihood, concave in the weights: a
multinomial logit whose covariates are the four terms of a class's score. Generalised zero-shot learning holds classes
out for its *calibrated stacking* in the same way (Chao et al., ECCV 2016, arXiv 1605.04253).

Few photos span few dimensions, in which all distances can be computed: P is a multiple of the identity outside.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.class_model.model import (
    COVERAGES,
    USUAL,
    USUAL_UNKNOWN,
    ClassModel,
    Doubles,
    Flags,
    Gaussian,
    Labels,
    Rivals,
    apart,
    gaussian,
)
from sar_infer.measures import auroc

PHOTOS = (0, 1, 2, 4, 8)
"""Photos with which held-out classes return."""
MIN_CLASSES = 4
_PARTS, _TESTED = 3, 8
"""One class in this many is held out; of a class that stays one photo in this many is tested."""
_NAMES = len(PHOTOS) - 1.0
"""Weight of a ranking by name: that of those by 1, 2, 4 and 8 photos together."""
_NAMELESS = _TESTED
"""In one round of this many, held-out classes that return with photos have no name."""
_CLASS_PHOTOS = 4.0
"""Independent photos that those of a class count as, since they are alike."""
_FREE, _HELD = 2.0, 0.5
"""Standard deviations of the prior, as shares of `USUAL`: of w0 and w2, which depend on the encoder, and of w3 and w1,
the latter around its usual share of w0."""
_MOVED = 2e-4
"""Nats by which the last half of the folds may change the predictions on average."""
_ROUNDS, _CELLS, _TASK_CELLS = 32, 2**23, 2**15
"""Limits of the folds: rounds, and numbers that are held."""
_KNOWN = 0.95
"""Share of images of known classes that are not called unknown."""
STAYED, RETURNED, ABSENT = 0, 1, 2


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


@dataclass(frozen=True, eq=False)
class Task:
    """Rankings of N images among C classes and *unknown*.

    Attributes:
        terms: (3, N, C + 1) float32, the terms of the first three weights, minus their value for the truth.
        truth: (N,) their columns.
        weight: (N,) weights.
        photos: (N,) photos with which held-out classes returned.
        side: (N,) `STAYED`, `RETURNED` or `ABSENT`: the image's class.
        labels: (N,) their classes.
        plain: True if all classes are present and named.
    """

    terms: npt.NDArray[np.float32]
    truth: Labels
    weight: Doubles
    photos: Labels
    side: Labels
    labels: Labels
    plain: bool


def halves(classes: int, seed: int = 0) -> tuple[Labels, Labels]:
    """Return the two halves of the classes that a prompt is trained on again."""
    order = np.random.default_rng(seed).permutation(classes)
    middle = (classes + 1) // 2
    return np.sort(order[:middle]), np.sort(order[middle:])


def obstacle(labels: Labels, classes: int) -> str | None:
    """Return why such photos cannot be cross-validated; None if they can."""
    if classes < MIN_CLASSES:
        return f"{classes} classes, fewer than {MIN_CLASSES}"
    if 2 * int((np.bincount(labels, minlength=classes) >= 2).sum()) <= classes:
        return "fewer than 2 photos of most classes"
    return None


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
    model = _model(closed, scale, rivals_of_each)
    if (why := obstacle(labels, len(texts))) is not None:
        return Fitted(model, 0, 0.0, np.zeros(len(texts)), why)
    size, in_short = rows.shape[1], [part.astype(np.float64) for part in in_halves]
    if not in_short:
        rows, texts, rivals = in_span(rows, texts, rivals)
    folds = _Folds(rows, texts, rivals, labels, flags, scale, in_short, size, seed)
    tasks: list[Task] = []
    weights, moved, rounds, target = np.array(USUAL), np.inf, 0, 2
    effective = _CLASS_PHOTOS * len(texts)
    while True:
        tasks += _merged([task for number in range(rounds, target) for task in folds.tasks(number)])
        rounds = target
        before = weights
        weights, curve = likeliest(tasks, effective, weights)
        moved = float((weights - before) @ curve @ (weights - before)) / 2 / effective
        if rounds > 2 and (moved < _MOVED or rounds >= _ROUNDS or 2 * sum(t.terms[0].size for t in tasks) > _CELLS):
            break
        target = 2 * rounds
    return _measured(model, weights, tasks, np.bincount(labels), rounds, moved)


def reworded(model: ClassModel, rows: npt.NDArray[Any], labels: Labels, texts: npt.NDArray[Any]) -> ClassModel:
    """Return a class model with the weights of another, for the same classes and other text rows.

    Args:
        model: The other.
        rows: (N, D) unit features.
        labels: (N,) 0 to C - 1.
        texts: (C, D) unit text rows.
    """
    closed = gaussian(rows.astype(np.float64), labels, texts.astype(np.float64), np.ones(len(texts), np.bool_))
    measured = {name: getattr(model, name) for name in ("weights", "unknown", "sets", "expected")}
    return dataclasses.replace(_model(closed, model.scale, model.rivals), **measured)


def _model(closed: Gaussian, scale: float, rivals_of_each: float) -> ClassModel:
    return ClassModel(
        closed.precision.astype(np.float32),
        closed.centre.astype(np.float32),
        closed.text_centre.astype(np.float32),
        closed.slope,
        closed.prior,
        closed.broad,
        scale,
        float(closed.photos),
        np.array(USUAL),
        USUAL_UNKNOWN,
        np.empty((0, 1 + len(COVERAGES))),
        np.empty((0, 3)),
        float(rivals_of_each),
    )


def in_span(rows: Doubles, texts: Doubles, rivals: Rivals | None) -> tuple[Doubles, Doubles, Rivals | None]:
    """Return the three in K coordinates, fewer than D if photos are few, in which all scores are the same.

    Coordinates are along an orthonormal basis of photos and texts; what a rival's text row has beyond them is one
    length, the last coordinate, since no image has a share in it. A covariance that is pooled goes beyond the span.
    """
    pooled = rivals is not None and rivals.model is not None
    if pooled or len(rows) + len(texts) + 1 >= rows.shape[1]:
        return rows, texts, rivals
    basis = np.linalg.qr(np.concatenate([rows, texts]).T)[0]
    inside = np.concatenate([rows, texts]) @ basis
    inside = np.concatenate([inside, np.zeros((len(inside), 1))], axis=1)
    if rivals is not None:
        short = rivals.texts @ basis
        rest = np.sqrt(np.maximum((rivals.texts**2).sum(1) - (short**2).sum(1), 0.0))
        short = np.concatenate([short, rest[:, None]], axis=1)
        rivals = Rivals(short, np.zeros_like(short), np.zeros(len(short)))
    return inside[: len(rows)], inside[len(rows) :], rivals


@dataclass(frozen=True, eq=False)
class _Folds:
    """All that the folds of a fit share; arguments of `fit`, in the span of its photos."""

    rows: Doubles
    texts: Doubles
    rivals: Rivals | None
    labels: Labels
    named: Flags
    scale: float
    in_halves: Sequence[Doubles]
    size: int
    seed: int

    def tasks(self, number: int) -> Iterator[Task]:
        """Yield the rankings of a round, in which every class is held out once."""
        rng, classes = np.random.default_rng([self.seed, number]), len(self.texts)
        nameless = number % _NAMELESS == _NAMELESS - 1
        if self.in_halves:
            both = halves(classes, self.seed)
            for half, (stayed, other) in enumerate((both, both[::-1])):
                for left in np.array_split(rng.permutation(other), 2):
                    yield from self._fold(stayed, left, self.in_halves[half], rng, nameless)
        else:
            for left in np.array_split(rng.permutation(classes), _PARTS):
                yield from self._fold(np.setdiff1d(np.arange(classes), left), left, self.texts, rng, nameless)

    def _fold(
        self, stayed: Labels, left: Labels, texts: Doubles, rng: np.random.Generator, nameless: bool
    ) -> Iterator[Task]:
        """Yield the rankings of a fold by number of photos: with all held-out classes, and with half of them absent."""
        photos = [rng.permutation(np.flatnonzero(self.labels == c)) for c in range(len(self.texts))]
        tested = [photos[c][: min(max(len(photos[c]) // _TESTED, 1), len(photos[c]) - 1)] for c in stayed]
        learned = [photos[c][len(rows) :] for c, rows in zip(stayed, tested, strict=True)]
        closed = gaussian(
            self.rows[np.concatenate(learned)],
            np.repeat(np.arange(len(stayed)), [len(rows) for rows in learned]),
            texts[stayed],
            self.named[stayed],
            rivals=self.rivals,
            size=self.size,
        )
        there = rng.permutation(len(left))[len(left) // 2 :]
        fixed = columns_of(
            closed, self._sums(closed, learned), list(map(len, learned)), texts[stayed], self.named[stayed]
        )
        if self.rivals is not None:
            sums = self.rivals.counts[:, None] * (self.rivals.means - closed.centre)
            fixed = _together(fixed, columns_of(closed, sums, self.rivals.counts, self.rivals.texts))
        for count in PHOTOS:
            shown = [photos[c][: min(count, max(len(photos[c]) - 1, 0))] for c in left]
            asked = [photos[c][count : count + 2 * max(PHOTOS)] for c in left]
            if 2 * sum(len(rows) > 0 for rows in asked) <= len(left):
                break
            named = np.zeros(len(left), np.bool_) if nameless and count else self.named[left]
            added = columns_of(closed, self._sums(closed, shown), list(map(len, shown)), texts[left], named)
            for present in (np.arange(len(left)), np.sort(there)):
                columns = _together(fixed, tuple(column[present] for column in added))
                last = len(columns[1])
                positions = np.full(len(left), last)
                positions[present] = np.arange(last - len(present), last)
                sizes = [len(group) for group in (*tested, *asked)]
                images, truth = np.concatenate([*tested, *asked]), np.repeat([*range(len(stayed)), *positions], sizes)
                side = np.where(truth == last, ABSENT, RETURNED)
                side[: sum(map(len, tested))] = STAYED
                most = max(16, _TASK_CELLS // (last + 1))
                if len(images) > most:
                    drawn = [rng.permutation(np.flatnonzero((side == STAYED) == flag))[: most // 2] for flag in (1, 0)]
                    images, truth, side = (values[np.concatenate(drawn)] for values in (images, truth, side))
                number = int((side == STAYED).sum())
                weight = np.where(side == STAYED, 1 / max(number, 1), 1 / max(len(side) - number, 1))
                terms = terms_of(closed, self.rows[images], columns, self.scale, self.size)
                yield Task(
                    terms - terms[:, np.arange(len(truth)), truth][..., None],
                    truth,
                    weight * (1.0 if count else _NAMES),
                    np.full(len(truth), count),
                    side,
                    self.labels[images],
                    len(present) == len(left) and not nameless,
                )

    def _sums(self, closed: Gaussian, photos: Sequence[Labels]) -> Doubles:
        """Return the sums (C, D) of some photos of classes, less the centre."""
        return np.array([(self.rows[rows] - closed.centre).sum(0) for rows in photos])


Columns = tuple[npt.NDArray[Any], ...]


def columns_of(
    closed: Gaussian, sums: Doubles, counts: npt.ArrayLike, texts: Doubles, named: Flags | None = None
) -> Columns:
    """Return what scores of C classes are made of: P d (C, D), what it is less by, v (C,), and text rows (C, D)."""
    d, v = apart(closed, texts, sums, counts, named)
    image = d @ closed.precision
    prior = texts if named is None else np.where(named[:, None], texts, closed.text_centre)
    less = (image * (d / 2 + closed.centre)).sum(1)
    return image.astype(np.float32), less.astype(np.float32), v.astype(np.float32), prior.astype(np.float32)


def _together(first: Columns, second: Columns) -> Columns:
    return tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))


def terms_of(closed: Gaussian, images: Doubles, columns: Columns, scale: float, size: int) -> npt.NDArray[np.float32]:
    """Return what the scores of images (N, D) are linear in, (3, N, C + 1); `linear` without the weights."""
    rows, (image, less, v, texts) = images.astype(np.float32), columns
    terms = np.zeros((3, len(rows), len(v) + 1), np.float32)
    terms[0, :, :-1] = rows @ image.T - less
    terms[1] = np.append(v, 1 / closed.broad) * size / 2
    terms[2, :, :-1] = rows @ texts.T
    terms[2, :, -1] = images @ closed.text_centre
    terms[2] *= np.float32(scale)
    return terms


def _merged(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks, small ones of as many classes and of one kind as one, so that a pass has few steps."""
    groups: dict[tuple[int, bool, int], list[Task]] = {}
    cells: Counter[tuple[int, bool]] = Counter()
    for task in tasks:
        key = task.terms.shape[2], task.plain
        groups.setdefault((*key, cells[key] // _TASK_CELLS), []).append(task)
        cells[key] += task.terms[0].size
    names = [field.name for field in dataclasses.fields(Task)[1:-1]]

    def joined(group: Sequence[Task]) -> Task:
        columns: dict[str, Any] = {name: np.concatenate([getattr(task, name) for task in group]) for name in names}
        return Task(np.concatenate([task.terms for task in group], axis=1), **columns, plain=group[0].plain)

    return [joined(group) for group in groups.values()]


def powers(task: Task, at: Doubles) -> npt.NDArray[np.float32]:
    """Return the powers (N, C + 1) of the scores under the weights, the largest of each image being 1."""
    scores = (at[:3].astype(np.float32) @ task.terms.reshape(3, -1)).reshape(task.terms.shape[1:])
    scores[:, -1] += np.float32(at[3])
    scores -= scores.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float32] = np.exp(scores, out=scores)
    return result


def likeliest(tasks: Sequence[Task], photos: float, start: Doubles) -> tuple[Doubles, Doubles]:
    """Return the weights (4,) of the largest posterior, and minus its second derivative (4, 4), by Newton's method.

    Args:
        tasks: The rankings, whose weights are scaled to sum to ``photos``.
        photos: Independent images that they count as.
        start: (4,) first weights.
    """
    usual, shape = np.array(USUAL), np.eye(len(USUAL))
    shape[1, 0] = -USUAL[1] / USUAL[0]
    precision = shape.T @ np.diag((np.array([_FREE, _HELD, _FREE, _HELD]) * usual) ** -2.0) @ shape
    factor = photos / sum(float(task.weight.sum()) for task in tasks)

    def derivatives(at: Doubles) -> tuple[float, Doubles, Doubles]:
        value, slope, curve = -float((at - usual) @ precision @ (at - usual)) / 2, precision @ (usual - at), precision
        curve = curve.copy()
        for task in tasks:
            shares, weight = powers(task, at), factor * task.weight
            totals, rows = shares.sum(axis=1), np.arange(len(weight))
            value += float(weight @ np.log(np.maximum(shares[rows, task.truth] / totals, 1e-30)))
            shares *= (weight / totals).astype(np.float32)[:, None]
            weighted = task.terms * shares
            mean = np.vstack([weighted.sum(axis=2), shares[:, -1]]).astype(np.float64)
            slope -= mean.sum(axis=1)
            slope[3] += weight[task.truth == shares.shape[1] - 1].sum()
            curve[:3, :3] += weighted.reshape(3, -1) @ task.terms.reshape(3, -1).T
            curve[3, :3] += weighted[..., -1].sum(axis=1)
            curve[:3, 3] += weighted[..., -1].sum(axis=1)
            curve[3, 3] += shares[:, -1].sum()
            curve -= mean @ (mean / weight).T
        return value, slope, curve

    at, (best, slope, curve) = start, derivatives(start)
    for _ in range(50):
        step = np.linalg.solve(curve, slope)
        if slope @ step < 2e-7 * photos:
            break
        value, *rest = derivatives(at + step)
        while value < best - 1e-6 * photos:
            step /= 2
            value, *rest = derivatives(at + step)
        at, best, (slope, curve) = at + step, value, rest
    if at[0] < 0:  # photos do not predict their classes: only names count
        at = np.append(0.0, at[1:])
    return at, curve


def _measured(
    model: ClassModel, weights: Doubles, tasks: Sequence[Task], counts: Labels, rounds: int, moved: float
) -> Fitted:
    """Return the model with weights, and with all that the rankings under them show."""
    columns: list[tuple[Any, ...]] = []
    for task in tasks:
        shares = powers(task, weights)
        strange, named = shares[:, -1] / shares.sum(axis=1), shares[:, :-1]
        own = named[np.arange(len(named)), np.minimum(task.truth, named.shape[1] - 1)]
        above, plain = (named > own[:, None]).sum(axis=1), np.full(len(own), task.plain)
        own = own / np.maximum(named.sum(axis=1), 1e-30)
        right = _among_fewer(named.shape[1] - 1, np.array([named.shape[1] - 1, named.shape[1] // 2]))[:, above]
        columns.append((strange, own, *right, plain, task.photos, task.side, task.labels, task.weight))
    strange, own, right, half, plain, photos, side, labels, mass = map(np.concatenate, zip(*columns, strict=True))
    known = np.flatnonzero(side != ABSENT)
    order = known[np.argsort(strange[known])]
    share = np.cumsum(mass[order])
    limit = float(strange[order][np.searchsorted(share, _KNOWN * share[-1])])

    def by_class(right: Doubles, flags: Flags) -> Any:
        """Return the mean (C,) over some images of each class, masked where there are none."""
        visits = np.bincount(labels[flags], minlength=len(counts)).astype(np.float64)
        return np.ma.masked_array(np.bincount(labels[flags], right[flags], len(counts)), visits == 0) / visits

    usual, independent = max(float(np.median(counts)), max(PHOTOS) + 1.0), _CLASS_PHOTOS * len(counts)
    sides = [(float(n), plain & (side == RETURNED) & (photos == n)) for n in PHOTOS]
    sides = [(n, flags) for n, flags in sides if flags.any()]
    least = [
        (n, *(_least(own[flags], c, independent) for c in COVERAGES))
        for n, flags in (*sides, (usual, plain & (side == STAYED)))
    ]
    expected, scores = [], []
    for n, flags in sides:
        stayed = by_class(right, plain & (side == STAYED) & (photos == n))
        full, fewer = by_class(right, flags), by_class(half, flags)
        expected.append((n, float(stayed.mean()), _extrapolated(float(full.mean()), float(fewer.mean()), model.rivals)))
        scores.append(np.ma.stack([stayed, full]).mean(axis=0))
    by_photos = [scores[0], *([np.ma.stack(scores[1:]).mean(axis=0)] if scores[1:] else [])]
    model = dataclasses.replace(
        model, weights=weights, unknown=limit, sets=np.array(least), expected=np.array(expected)
    )
    fitted = Fitted(model, rounds, moved, np.ma.stack(by_photos).mean(axis=0).filled(0.0))
    absent = side == ABSENT
    if not absent.any():  # too few classes for one to be left out
        return fitted
    alarms, rejected = (float(mass[flags & (strange > limit)].sum() / mass[flags].sum()) for flags in (~absent, absent))
    area = auroc(strange[absent], strange[~absent])
    return dataclasses.replace(fitted, auroc=area, false_alarms=alarms, rejected=rejected)


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


def _least(scores: Doubles, coverage: float, independent: float) -> float:
    """Return the quantile of split conformal prediction (Sadinle et al., arXiv 1609.00451) for a number of scores."""
    share = np.ceil((independent + 1) * coverage - 1e-9) / independent
    return 0.0 if share > 1 else float(np.sort(scores)[int(np.floor((1 - share) * len(scores) + 1e-9))])
