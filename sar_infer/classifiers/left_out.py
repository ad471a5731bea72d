"""The free numbers of class statistics, chosen by leaving classes out in turn.

No photo of a class that is added later is needed: some trained classes are left out and added again, by name and by a
few of their photos; half of the photos of the rest are the statistics, the other half is evaluated, together with the
classes left out, in one ranking. What does best there is chosen. Generalised zero-shot learning chooses its
*calibrated stacking* in the same way (Chao et al., ECCV 2016, arXiv 1605.04253).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer.classifiers.gaussian import Doubles, Gaussian, Labels, TrainedClasses, assemble, gaussian
from sar_infer.classifiers.statistics import Statistics, composed
from sar_infer.classifiers.trained_statistics import MIN_CLASSES

ALPHAS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
PHOTOS = (0, 1, 2, 4, 8)
"""Numbers of photos that g is fitted for."""
PHOTO_ALPHA = 0.5
"""Weight of the photos of added classes where alpha is 0, so that text alone ranks all others."""
LEARNED, HANDCRAFTED = "learned", "handcrafted"
"""Names of prompts."""
_PARTS = 3
"""Of the classes, one part in so many is left out."""
_SPLITS = 48
"""Classes that are left out in all, unless there are more."""
_EVALUATED = 1600
"""Approximate limit of the photos that a fold evaluates."""
_MARGIN = 0.25
"""Points that a larger alpha has to gain."""
EARNED = 0.5
"""Points that a learned prompt has to gain; less is noise."""
_CLASS_PHOTOS = 4
"""Independent photos that those of a class count as in an interval, at most."""
_CURVE_STEP = 4
"""Every fourth value of g is kept in the curve."""
_PLATEAU = 0.5
"""Points below the best within which values of g count as equally good; the middle one is taken."""
_FOR_NAMES = 4.0
"""Points that classes with photos give up for rivals known by name, if these are nearly all classes."""


def text_alone(model: Gaussian) -> Gaussian:
    """Return the model for an alpha of 0: trained classes have no image term, photos that are added later have.

    With all means at the centre, a slope of 0 and `PHOTO_ALPHA`, logits of trained classes and of names are those of
    text, apart from g. A class that gets photos is pulled by them, as it was when alpha was chosen.
    """
    return dataclasses.replace(model, means=np.broadcast_to(model.centre, model.means.shape).copy())


@dataclass(frozen=True)
class Fold:
    """Classes that stay and classes that are left out; ``half`` says which prompt of two was trained on the former."""

    kept: Labels
    left: Labels
    half: int = 0


def halves(classes: int, seed: int = 0) -> tuple[Labels, Labels]:
    """Return the two halves of the classes that prompts are trained on again."""
    order = np.random.default_rng(seed).permutation(classes)
    middle = (classes + 1) // 2
    return np.sort(order[:middle]), np.sort(order[middle:])


def folds_of(classes: int, *, retrained: bool, seed: int = 0) -> list[Fold]:
    """Return the folds: every class is left out as often as any other.

    Args:
        classes: C, at least `MIN_CLASSES`.
        retrained: True for prompts that were trained on the `halves`: one half stays, and of the other one half is
            left out; else a third of all classes is.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    repeats = max(2, math.ceil(_SPLITS / classes))
    folds = []
    for _ in range(repeats):
        if retrained:
            both = halves(classes, seed)
            for half, (remaining, other) in enumerate((both, both[::-1])):
                groups = np.array_split(rng.permutation(other), 2)
                folds += [Fold(remaining, np.sort(group), half) for group in groups]
        else:
            for group in np.array_split(rng.permutation(classes), _PARTS):
                folds.append(Fold(np.setdiff1d(np.arange(classes), group), np.sort(group)))
    return folds if classes <= 10 * _SPLITS else folds[:1]


@dataclass(frozen=True, eq=False)
class Rivals:
    """Classes that compete in every fold and are never left out, since no photo of theirs is at hand.

    Attributes:
        named: (M, D) unit text rows of classes known by name alone.
        trained: Classes that were learned from before; they lose g as the classes that stay do.
    """

    named: Doubles | None = None
    trained: TrainedClasses | None = None

    def __len__(self) -> int:
        named = 0 if self.named is None else len(self.named)
        return named + (0 if self.trained is None else len(self.trained.rows))


NO_RIVALS = Rivals()


@dataclass(frozen=True)
class Prompt:
    """Text rows of the trained classes under one prompt.

    Attributes:
        name: ``learned`` or ``handcrafted``.
        rows: (C, D) unit rows.
        in_fold: (C, D) rows under the prompt trained again on each of the `halves`; empty if the prompt has never
            seen a photo, so that ``rows`` hold in every fold.
    """

    name: str
    rows: Doubles
    in_fold: tuple[Doubles, ...] = ()

    def of(self, fold: Fold) -> Doubles:
        """Return the rows to evaluate a fold with."""
        return self.in_fold[fold.half] if self.in_fold else self.rows


@dataclass(frozen=True)
class Measured:
    """The curves of one prompt, one alpha and one number of photos of the classes left out, in per cent.

    Attributes:
        trained: (G,) accuracy on kept classes for each value of g, mean over classes.
        left: (C, G) accuracy on each class when it is left out; NaN for one that never was.
        turns: (G,) variance of a class's accuracy from one turn to another, in which other classes are beside it and it
            has learned other photos; mean over classes.
    """

    trained: Doubles
    left: Doubles
    turns: Doubles

    @property
    def mean(self) -> Doubles:
        """Return (G,) the criterion: the mean of trained and left-out accuracy per class."""
        result: Doubles = (self.trained + np.nanmean(self.left, axis=0)) / 2
        return result


@dataclass(frozen=True)
class Expected:
    """Mean accuracy to expect of as many classes added later, in per cent, with a 95 % interval; see `_expected`."""

    photos: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class LeftOutResult:
    """The result of leaving classes out.

    Attributes:
        prompt: the name of the chosen prompt.
        alpha: weight of the image term; 0 leaves trained classes and names to text alone, and see `text_alone`.
        offsets: (n, g) in rising n.
        curve: (shift, trained, left-out by name) for `Statistics.curve`.
        scores: the criterion by prompt and alpha.
        trained: accuracy of trained classes beside left-out ones, by number of photos of the latter.
        expected: for each number of photos.
    """

    prompt: str
    alpha: float
    offsets: tuple[tuple[int, float], ...]
    curve: tuple[tuple[float, float, float], ...]
    scores: Mapping[str, Mapping[float, float]]
    trained: Mapping[int, float]
    expected: tuple[Expected, ...]


def fittable(labels: Labels, classes: int) -> str | None:
    """Return why nothing can be fitted to such labels; None if it can."""
    counts = np.bincount(labels, minlength=classes)
    if classes < MIN_CLASSES:
        return f"{classes} classes, fewer than {MIN_CLASSES}"
    if 2 * int((counts >= 2).sum()) <= classes:
        return "fewer than 2 photos of most classes"
    return None


def choose(
    features: Doubles,
    labels: Labels,
    prompts: Sequence[Prompt],
    scale: float,
    *,
    reference: Doubles | None = None,
    rivals: Rivals = NO_RIVALS,
    alphas: Sequence[float] = ALPHAS,
    seed: int = 0,
) -> LeftOutResult:
    """Choose prompt, alpha and g by leaving classes out.

    No photo of a rival known by name is at hand, and left-out classes hardly stand for many of them: where all names
    lose to these rivals, nothing speaks against a g with which classes with photos take every image. g is therefore
    the largest within a margin, which grows with the share of such rivals.

    Args:
        features: (N, V, D) unit rows; the plain view is the first. All views are evaluated, so that what holds under
            one crop alone does not win, and only plain views are learned from.
        labels: (N,) 0 to C - 1, for which `fittable` says None.
        prompts: to choose among; any but the first has to gain half a point on it.
        scale: the logit scale.
        reference: (D, D) covariance where photos show none.
        rivals: classes that compete too.
        alphas: to choose among, in rising order.
        seed: of folds and draws.
    """
    classes = len(prompts[0].rows)
    grid = np.linspace(-2, 4, 241) * scale
    folds = folds_of(classes, retrained=any(prompt.in_fold for prompt in prompts), seed=seed)
    rng = np.random.default_rng(seed + 1)
    most = max(2, _EVALUATED // classes)
    drawn = [FoldPhotos.draw(fold, features, labels, rng, reference, rivals, most=most) for fold in folds]
    fold_photos = [photos for photos in drawn if photos is not None]
    measured = _measure(fold_photos, prompts, scale, alphas, grid)
    numbers = sorted({n for _, _, n in measured})
    scores = {
        prompt.name: {alpha: _score([measured[prompt.name, alpha, n].mean.max() for n in numbers]) for alpha in alphas}
        for prompt in prompts
    }
    best = {name: max(of.values()) for name, of in scores.items()}
    name = max(best, key=lambda each: best[each] - (0 if each == prompts[0].name else EARNED))
    alpha = next(a for a in alphas if scores[name][a] >= best[name] - _MARGIN)
    chosen = {n: measured[name, alpha, n] for n in numbers}
    optima = {n: _middle(of.mean) for n, of in chosen.items()}
    if rivals.named is not None and len(rivals.named):
        optima[0] = max(optima[0], _largest(chosen[0].mean, _FOR_NAMES * len(rivals.named) / (classes + len(rivals))))
    counts = np.bincount(labels, minlength=classes)
    usual = int(np.median(counts[counts > 0]))
    full = float(grid[optima[0]])
    offsets = [(n, full - float(grid[optima[n]]) if n else 0.0) for n in numbers if n < usual]
    named = chosen[0]
    others = float(np.mean([len(fold.kept) + len(fold.left) - 1 for fold in folds])) + len(rivals)
    return LeftOutResult(
        name,
        alpha,
        (*offsets, (usual, full)),
        tuple(
            (float(g - full), float(a), float(b))
            for g, a, b in zip(grid, named.trained, np.nanmean(named.left, axis=0), strict=True)
        )[optima[0] % _CURVE_STEP :: _CURVE_STEP],  # so that the optimum is among them
        scores,
        {n: float(of.trained[optima[n]]) for n, of in chosen.items()},
        tuple(_expected(n, of, optima[n], others, len(rivals)) for n, of in chosen.items()),
    )


def _score(best: Sequence[float]) -> float:
    """Return one score of the best means by number of photos, the first of which is none: names count half."""
    return float(best[0] if len(best) == 1 else (best[0] + np.mean(best[1:])) / 2)


def _middle(curve: Doubles) -> int:
    """Return the middle of the places where a curve is about as good as anywhere."""
    good = np.flatnonzero(curve >= curve.max() - _PLATEAU)
    return int(good[len(good) // 2])


def _largest(curve: Doubles, margin: float) -> int:
    """Return the last place where a curve is within a margin of its best."""
    return int(np.flatnonzero(curve >= curve.max() - margin)[-1])


def _expected(photos: int, measured: Measured, optimum: int, others: float, fixed: int) -> Expected:
    """Return what may be expected if as many classes are added as were left out in turn.

    Left-out classes had fewer rivals than that. A class that is right with probability a among ``others`` is so with
    a^(m / others) among m, if each takes images independently. The interval is one of prediction, of the mean over as
    many further classes: ``t sqrt(s² / C + (s² + v) / C)`` with Student's t, the variance s² over classes and v over
    turns of a class. s² is at least ``p (1 - p) / 4`` with ``p = (C mean + 1) / (C + 2)``: a class says no more than
    four photos, and a few classes that are all right do not promise that the next one is.

    Args:
        photos: number of photos of the added class.
        measured: the curves.
        optimum: the chosen value of g.
        others: the mean number of others that left-out classes were ranked with.
        fixed: how many of these compete in every fold.
    """
    shares = measured.left[:, optimum] / 100
    values, power = shares[~np.isnan(shares)], (2 * len(shares) - 1 + fixed) / others
    slope = power * float(values.mean()) ** (power - 1) if values.any() else 0.0
    values = values**power
    count, mean = len(values), 100 * float(values.mean())
    half = math.inf
    if free := count - 1:
        quantile = 1.96 + 2.372 / free + 2.823 / free**2 + 2.556 / free**3  # of 97.5 %, Cornish-Fisher
        middle = (float(values.sum()) + 1) / (count + 2)
        between = max(float(values.var(ddof=1)), middle * (1 - middle) / _CLASS_PHOTOS)
        turns = slope**2 * float(measured.turns[optimum]) / 100**2
        half = 100 * quantile * math.sqrt((2 * between + turns) / count)
    return Expected(photos, mean, max(0.0, mean - half), min(100.0, mean + half))


def _measure(
    all_photos: Sequence[FoldPhotos], prompts: Sequence[Prompt], scale: float, alphas: Sequence[float], grid: Doubles
) -> dict[tuple[str, float, int], Measured]:
    """Return the curves by prompt, alpha and number of photos."""
    classes = len(prompts[0].rows)
    trained: dict[tuple[str, float, int], list[Doubles]] = {}
    left: dict[tuple[str, float, int], list[tuple[Fold, Doubles]]] = {}
    for fold_photos in all_photos:
        for prompt in prompts:
            for photos, alpha, on_kept, on_left in fold_photos.curves(prompt.of(fold_photos.fold), scale, alphas, grid):
                key = (prompt.name, alpha, photos)
                trained.setdefault(key, []).append(on_kept)
                left.setdefault(key, []).append((fold_photos.fold, on_left))
    measured = {}
    for key, curves in left.items():
        sums, squares, visits = np.zeros((classes, len(grid))), np.zeros((classes, len(grid))), np.zeros((classes, 1))
        for fold, on_left in curves:
            visited = fold.left[~np.isnan(on_left[:, 0])]
            accuracies = on_left[~np.isnan(on_left[:, 0])]
            sums[visited] += accuracies
            squares[visited] += accuracies**2
            visits[visited] += 1
        mean = np.where(visits > 0, sums / np.maximum(visits, 1), np.nan)
        several = visits[:, 0] > 1
        turns = (squares - sums**2 / np.maximum(visits, 1))[several] / (visits[several] - 1)
        turns = turns.mean(axis=0) if several.any() else np.zeros(len(grid))
        measured[key] = Measured(np.mean(trained[key], axis=0), mean, np.maximum(turns, 0.0))
    return measured


@dataclass(frozen=True, eq=False)
class FoldPhotos:
    """The photos of one fold: the model of the kept classes, all evaluated views, and those of the left-out classes.

    ``truth`` (N,) is the index among kept or left-out classes, ``order`` (N,) the number of a left-out photo within
    its class, -1 for kept ones; ``drawn`` has the plain rows (n, D) of each left-out class in this order. Trained
    rivals follow the kept classes in the model, named ones the left-out classes in every ranking.
    """

    fold: Fold
    model: Gaussian
    images: Doubles
    truth: Labels
    order: Labels
    drawn: Sequence[Doubles]
    rivals: Rivals = NO_RIVALS

    @classmethod
    def draw(
        cls,
        fold: Fold,
        features: Doubles,
        labels: Labels,
        rng: np.random.Generator,
        reference: Doubles | None = None,
        rivals: Rivals = NO_RIVALS,
        *,
        parts: int = 2,
        most: int,
    ) -> FoldPhotos | None:
        """Draw the photos of a fold; None if no kept class has two.

        Args:
            fold: which classes stay.
            features: (N, V, D) unit rows.
            labels: (N,) 0 to C - 1.
            rng: of the draw.
            reference: (D, D) covariance where photos show none.
            rivals: classes that compete too.
            parts: one part in so many of a kept class's photos is evaluated, at least one photo; the others are
                learned from.
            most: photos of a class that are evaluated.
        """
        remaining = [rng.permutation(np.flatnonzero(labels == c)) for c in fold.kept]
        left = [rng.permutation(np.flatnonzero(labels == c))[: most + PHOTOS[-1]] for c in fold.left]
        sizes = [len(rows) - max(len(rows) // parts, min(len(rows) - 1, 1)) for rows in remaining]
        learn = [rows[:size] for rows, size in zip(remaining, sizes, strict=True)]
        tested = [rows[size:][:most] for rows, size in zip(remaining, sizes, strict=True)]
        if not any(map(len, tested)):
            return None
        learned_labels = np.repeat(np.arange(len(learn)), [len(rows) for rows in learn])
        learned = features[np.concatenate(learn), 0]
        model = gaussian(learned, learned_labels, len(remaining), reference, rivals.trained)
        truth = np.concatenate(
            [np.full(len(rows), label) for group in (tested, left) for label, rows in enumerate(group)]
        )
        order = np.concatenate([np.full(len(rows), -1) for rows in tested] + [np.arange(len(rows)) for rows in left])
        views = features.shape[1]
        images = np.concatenate(features[np.concatenate([*tested, *left])])
        drawn = [features[rows, 0] for rows in left]
        return cls(fold, model, images, truth.repeat(views), order.repeat(views), drawn, rivals)

    def kept_rows(self, rows: Doubles) -> Doubles:
        """Return the text rows of the kept classes and of trained rivals, from those (C, D) of all."""
        trained = self.rivals.trained
        return rows[self.fold.kept] if trained is None else np.concatenate([rows[self.fold.kept], trained.rows])

    def learned(self, photos: int) -> tuple[Doubles, Labels] | None:
        """Return means (L, D) and counts (L,) of so many photos of each left-out class; None if most have too few."""
        if 2 * sum(len(rows) > photos for rows in self.drawn) <= len(self.drawn):
            return None
        first = [rows[: min(photos, max(len(rows) - 1, 0))] for rows in self.drawn]
        means = np.stack([rows.mean(0) if len(rows) else self.model.centre for rows in first])
        return means, np.array([len(rows) for rows in first])

    def counted(self, counts: Labels) -> npt.NDArray[np.bool_]:
        """Return flags (N,) of photos of left-out classes that are not among the first, of which each has learned."""
        return (self.order >= 0) & (self.order >= counts[np.minimum(self.truth, len(counts) - 1)])

    def curves(
        self, rows: Doubles, scale: float, alphas: Sequence[float], grid: Doubles
    ) -> Iterator[tuple[int, float, Doubles, Doubles]]:
        """Yield (photos, alpha, (G,) mean accuracy on kept classes, (L, G) accuracy on each left-out class)."""
        remaining, left = self.kept_rows(rows), rows[self.fold.left]
        text_kept, text_left = scale * self.images @ remaining.T, scale * self.images @ left.T
        image_only = assemble(self.model, remaining, alpha=1.0)
        centred = self.images - self.model.centre

        def image_logits(model: Statistics, names: Doubles, means: Doubles, counts: Labels) -> Doubles:
            weights, bias = composed(model, 0.0, names.astype(np.float32), means, counts)
            result: Doubles = centred @ weights.T.astype(np.float64) + bias
            return result

        image_kept = image_logits(image_only, remaining, self.model.means, self.model.counts)
        unnamed = dataclasses.replace(image_only, slope=0.0) if 0 in alphas else None
        named = self.rivals.named
        best_named = dict.fromkeys(alphas, np.full(len(self.images), -np.inf))
        if named is not None and len(named):
            text = scale * self.images @ named.T
            image = image_logits(image_only, named, np.zeros_like(named), np.zeros(len(named), np.int64))
            best_named = {alpha: (text + alpha * image).max(1) for alpha in alphas}
        for photos in PHOTOS:
            learned = self.learned(photos)
            if learned is None:
                break
            means, counts = learned
            image_left = image_logits(image_only, left, means, counts)
            is_kept, is_counted = self.order < 0, self.counted(counts)
            for alpha in alphas:
                logits_kept, logits_left = text_kept + alpha * image_kept, text_left + alpha * image_left
                if unnamed is not None and alpha == 0:  # prototypes, which are 0 without photos
                    logits_left = text_left + PHOTO_ALPHA * image_logits(unnamed, left, means, counts)
                best_left, other = logits_left.max(1), best_named[alpha]
                margin = logits_kept.max(1) - np.maximum(best_left, other)
                right_left = (logits_left.argmax(1) == self.truth) & (best_left >= other)
                right = np.where(is_kept, logits_kept.argmax(1) == self.truth, right_left)
                above = _shares(margin, right, self.truth, is_kept, len(self.fold.kept), grid, above=True)
                yield (
                    photos,
                    alpha,
                    np.nanmean(above, axis=0),
                    _shares(margin, right, self.truth, is_counted, len(left), grid, above=False),
                )

    def logits(self, statistics: Statistics, rows: Doubles, scale: float, photos: int) -> tuple[Doubles, Labels] | None:
        """Return logits (N, K + R + L + M) as a bundle gives them, and the column (N,) of each image's own class.

        Columns are kept classes, trained rivals, left-out classes with so many photos, and named rivals. Images that a
        left-out class has learned have -1. None if most left-out classes have too few.

        Args:
            statistics: with the model of this fold, and with the chosen numbers.
            rows: (C, D) text rows of all classes.
            scale: the logit scale.
            photos: of each left-out class.
        """
        learned = self.learned(photos)
        if learned is None:
            return None
        named = np.zeros((0, rows.shape[1])) if self.rivals.named is None else self.rivals.named
        kept_rows = self.kept_rows(rows)
        means = np.concatenate([self.model.means, learned[0], np.zeros_like(named)])
        usual = np.full(len(kept_rows), statistics.offsets[-1][0])  # loses as much as with all photos
        counts = np.concatenate([self.model.counts, learned[1], np.zeros(len(named), np.int64)])
        texts = np.concatenate([kept_rows, rows[self.fold.left], named]).astype(np.float32)
        weights, bias = composed(statistics, scale, texts, means, counts)
        bias[: len(usual)] += statistics.offset(counts[: len(usual)]) - statistics.offset(usual)
        logits: Doubles = (self.images - self.model.centre) @ weights.T.astype(np.float64) + bias
        is_kept = self.order < 0
        truth = np.where(is_kept, self.truth, self.truth + len(kept_rows))
        return logits, np.where(is_kept | self.counted(learned[1]), truth, -1)


def _shares(
    margin: Doubles,
    right: npt.NDArray[np.bool_],
    truth: Labels,
    counted: npt.NDArray[np.bool_],
    classes: int,
    grid: Doubles,
    *,
    above: bool,
) -> Doubles:
    """Return (classes, G) per cent of each class's images that are right with g subtracted from the kept classes."""
    shares = np.full((classes, len(grid)), np.nan)
    for c in range(classes):
        of_class = counted & (truth == c)
        count = int(of_class.sum())
        if count:
            ranks = np.searchsorted(np.sort(margin[of_class & right]), grid, side="right")
            hits = (of_class & right).sum() - ranks if above else ranks
            shares[c] = 100 * hits / count
    return shares
