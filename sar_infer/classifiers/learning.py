"""Learning from photos that nobody labelled: EM on the model of class statistics, in numpy.

Responsibilities are the softmax of the composed logits. Photos count for a class as parts of labelled ones do, so that
its mean becomes ``(n x̄ + Σ w r (x + t) + k m̂) / (n + Σ w r + k)`` and its offset is g of ``n + Σ w r``; t is one
translation of all photos, the share of their camera. A name stays the anchor of its class by k photos, as in StatA
(Zanella et al., CVPR 2025, arXiv 2501.03729); the mixture with one shared covariance and answers of text is that of
TransCLIP (Zanella et al., NeurIPS 2024, arXiv 2406.01837).

Plain EM assumes that every photo is of one of the classes. `CAUTIOUS` does not: see `Caution` for what it asks of
photos and classes, and docs/adr/0031-learn-from-unlabelled-photos.md for where its numbers come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.classifiers.statistics import Doubles, Flags, Statistics, class_means, composed

_CELLS = 2**22
"""Numbers of an array that are held at once: rows times the larger of classes and D."""
_SAMPLE = 4096
"""Photos that groups are formed of."""
_TRANSLATION_PRIOR = 10.0
"""Photos without a translation that count beside the stream."""
_DOUBT = 20.0
"""Photos beside the stream that want no translation, by default: a few photos may be of few classes by chance."""
_GROUP_PRIOR = 5.0
_GROUP_ROUNDS, _GROUP_DRAWS, _MOST_GROUPS = 15, 3, 20
_SOFT = 0.03
"""Width of the thresholds on distances."""


@dataclass(frozen=True, eq=False)
class KnownClasses:
    """All that is known of C classes without the stream.

    Attributes:
        rows: (C, D) unit text rows.
        means: (C, D) mean unit row of labelled photos; ignored where there are none.
        counts: (C,) numbers of labelled photos.
        photos_only: (C,) True for classes whose name means nothing.
    """

    rows: Floats
    means: Floats
    counts: npt.NDArray[np.float64]
    photos_only: Flags


@dataclass(frozen=True)
class Caution:
    """Demands on photos and classes before photos count.

    Attributes:
        rounds: Rounds of EM.
        weight: Labelled photos that a photo without label counts as, at most.
        most: Labelled photos that all photos of a class count as, at most.
        share: The same for each labelled photo of the class; the larger of both holds.
        sure: Least responsibility of its best class with which a photo counts.
        agreement: Weight that a photo loses if text alone ranks another class first.
        distance: Squared distance to the best class under P, as a share of that to the centre, at which a photo counts
            half; None for no limit.
        held: Least mean responsibility with which a class has to hold the photos that it wins; 0 for no limit.
        temperature: Of responsibilities; scores are too sure.
        translates: Take one translation of all photos from every round; without it, `learn` guards the translation.
    """

    rounds: int = 15
    weight: float = 1.0
    most: float = np.inf
    share: float = 0.0
    sure: float = 0.0
    agreement: float = 0.0
    distance: float | None = None
    held: float = 0.0
    temperature: float = 1.0
    translates: bool = True


PLAIN = Caution()
"""EM as it is, for streams in which every photo is of one of the classes."""
CAUTIOUS = Caution(
    rounds=8,
    weight=0.3,
    most=4.0,
    share=0.25,
    sure=0.65,
    agreement=0.5,
    distance=0.9,
    held=0.65,
    temperature=3.0,
    translates=False,
)
"""For any stream, the same for all bundles."""
SAME_KIND = (0.15, 0.25)
"""Shares of `shared_shift` up to which class means are learned wholly, and from which on they are not learned."""
SHIFTED = (0.25, 0.3)
"""Shares of `shared_shift` from which on a translation is believed, and with which it is believed wholly."""
COVERED = (0.4, 0.6)
"""The same for the effective number of classes in the stream, as a share of those of the bank."""


@dataclass(frozen=True, eq=False)
class Learning:
    """Result of `learn`.

    Attributes:
        sums: (C, D) weighted sums of rows, as the stream has them.
        counts: (C,) labelled photos that the stream counts as for each class.
        translation: (D,) what is added to the row of an image before it is ranked.
        photos: Number of photos N.
        shift: Share of the stream's shift that its groups of photos have in common, see `shared_shift`.
        shifted: Squared length of the translation under P, as a share of that of class means from the centre.
    """

    sums: Doubles
    counts: Doubles
    translation: Doubles
    photos: int
    shift: float
    shifted: float


@dataclass(frozen=True, eq=False)
class Judged:
    """The stream's photos before and after learning, a few at a time.

    Attributes:
        before: (N,) columns of the best classes before.
        after: (N,) after.
        scores: (N,) responsibility of the best class after.
        distances: (N,) squared distance to its mean under P, as a share of that to the centre.
        counted: (N,) weight of the photo, 0 to 1, without that of its class; 0 if no class learned.
    """

    before: npt.NDArray[np.intp]
    after: npt.NDArray[np.intp]
    scores: Doubles
    distances: Doubles
    counted: Doubles


def learn(
    statistics: Statistics,
    scale: float,
    known: KnownClasses,
    features: Floats,
    *,
    all_known: bool = False,
    caution: Caution | None = None,
    told: Callable[[int], object] = lambda rows: None,
) -> Learning:
    """Learn the means of classes, and one translation, from photos without labels.

    Without ``all_known`` one of both is learned, as `shared_shift` says: means from photos of the same kind as those of
    the statistics; from photos of another kind the translation of `PLAIN` EM, as far as the stream covers the classes.
    Memory does not grow with N: ``features`` may be a memory map. Nothing is random.

    Args:
        statistics: The model.
        scale: s, the logit scale.
        known: The classes.
        features: (N, D) unit rows of the stream.
        all_known: Every photo is of one of the classes; allows `PLAIN` EM.
        caution: Other demands than `PLAIN` or `CAUTIOUS`.
        told: Called with the number of rows whenever some have been worked on.

    Returns:
        What was learned; its weights are in sums and counts, so that ranking needs no other number.
    """
    caution = caution or (PLAIN if all_known else CAUTIOUS)
    size, classes = known.rows.shape[1], len(known.rows)
    nothing = Learning(np.zeros((classes, size)), np.zeros(classes), np.zeros(size), len(features), 0.0, 0.0)
    if not len(features) or not classes:
        return nothing
    start = _Model.of(statistics, scale, known, nothing)
    shift = shared_shift(statistics, start.means, features)
    if caution.translates:
        learning = _rounds(statistics, scale, known, features, caution, told)
    elif shift > SHIFTED[0]:  # means of another camera harm, and a translation does if classes are absent
        plain = _rounds(statistics, scale, known, features, PLAIN, told)
        trust = _ramp(shift, SHIFTED) * _ramp(_effective(plain.counts) / classes, COVERED)
        trust *= len(features) / (len(features) + _DOUBT)
        learning = dataclasses.replace(nothing, translation=trust * plain.translation)
    else:
        learning = _rounds(statistics, scale, known, features, caution, told)
        trust = 1 - _ramp(shift, SAME_KIND)
        learning = dataclasses.replace(learning, sums=trust * learning.sums, counts=trust * learning.counts)
    moved = _relative(statistics, learning.translation, start.means)
    return dataclasses.replace(learning, photos=len(features), shift=shift, shifted=moved)


def _rounds(
    statistics: Statistics,
    scale: float,
    known: KnownClasses,
    features: Floats,
    caution: Caution,
    told: Callable[[int], object],
) -> Learning:
    """Return what EM learns."""
    classes, size = known.rows.shape
    learning = Learning(np.zeros((classes, size)), np.zeros(classes), np.zeros(size), 0, 0.0, 0.0)
    for _ in range(caution.rounds):
        model = _Model.of(statistics, scale, known, learning)
        sums = _Sums(classes, size)
        for rows in _chunks(features, classes):
            sums.add(rows, model, caution)
            told(len(rows))
        learning = sums.learning(model, caution, known, learning)
    return learning


def _effective(counts: Doubles) -> float:
    """Return how many classes photos are of, the exponential of the entropy of their shares; 0 without photos."""
    shares = counts[counts > 0] / max(float(counts.sum()), 1e-30)
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def _ramp(value: float, limits: tuple[float, float]) -> float:
    """Return 0 below the first limit, 1 above the second, and what is linear between."""
    return float(np.clip((value - limits[0]) / (limits[1] - limits[0]), 0, 1))


def judge(
    statistics: Statistics,
    scale: float,
    known: KnownClasses,
    learning: Learning,
    rows: Floats,
    *,
    caution: Caution = CAUTIOUS,
) -> Judged:
    """Return what is to be said of some photos (N, D) of the stream.

    Args:
        statistics: The model.
        scale: s, the logit scale.
        known: The classes.
        learning: What was learned.
        rows: (N, D) unit rows.
        caution: The demands by which photos count.
    """
    size = known.rows.shape[1]
    nothing = Learning(np.zeros_like(learning.sums), np.zeros_like(learning.counts), np.zeros(size), 0, 0.0, 0.0)
    before = _Model.of(statistics, scale, known, nothing).answers(rows)
    model = _Model.of(statistics, scale, known, learning)
    after = model.answers(rows, caution.temperature)
    counted = _photo_weights(after, caution) * bool(learning.counts.any())
    return Judged(before.best, after.best, after.best_share, after.distances, counted)


def shared_shift(statistics: Statistics, means: Doubles, features: Floats) -> float:
    """Return which share of the shift of groups of photos all groups have in common, 0 or less to 1.

    Photos are grouped by k-means. What lies in the span of class means says which classes a group has, so it is taken
    off; in the rest, ``mean of <e_i, e_j> over pairs / mean of <e_i, e_i>`` is near 0 if groups differ each in its own
    way, as classes do, and near 1 if one thing moved them all, as a camera does. Inner products are those of P.

    Args:
        statistics: The model.
        means: (C, D) class means.
        features: (N, D) unit rows; some thousand, evenly spaced, are looked at.
    """
    step = max(1, len(features) // _SAMPLE)
    root = statistics.root
    points = (np.asarray(features[::step], np.float64) - statistics.centre) @ root
    count = min(len(means), len(points) // 5, _MOST_GROUPS)
    count = max(2, count)
    if len(points) < 2 * count:
        return 0.0
    _, lengths, axes = np.linalg.svd((means - statistics.centre) @ root, full_matrices=False)
    span = axes[lengths > 1e-6 * max(lengths.max(), 1e-30)]
    shares = []
    for seed in range(_GROUP_DRAWS):
        groups = _groups(points, count, np.random.default_rng(seed))
        sizes = np.bincount(groups, minlength=count)
        numbers = np.flatnonzero(sizes >= 2)
        if len(numbers) < 2:
            shares.append(0.0)
            continue
        centres = np.array([points[groups == number].mean(0) for number in numbers])
        centres -= (centres @ span.T) @ span
        weights = sizes[numbers] / (sizes[numbers] + _GROUP_PRIOR)
        weights /= weights.sum()
        products, pairs = centres @ centres.T, np.outer(weights, weights)
        np.fill_diagonal(pairs, 0)
        common = float((pairs * products).sum() / pairs.sum())
        shares.append(common / max(float(weights @ np.diag(products)), 1e-30))
    return float(np.mean(shares))


def _groups(points: Doubles, count: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return the group (N,) of each point by k-means from drawn points."""
    centres = points[rng.permutation(len(points))[:count]].copy()
    groups = np.zeros(len(points), np.intp)
    for _ in range(_GROUP_ROUNDS):
        groups = (points @ centres.T - (centres**2).sum(1) / 2).argmax(1)
        for number in range(count):
            if (groups == number).any():
                centres[number] = points[groups == number].mean(0)
    return groups


def _relative(statistics: Statistics, translation: Doubles, means: Doubles) -> float:
    """Return the squared length of a translation under P, as a share of the mean one of class means."""
    precision, apart = statistics.precision.astype(np.float64), means - statistics.centre
    spread = float(((apart @ precision) * apart).sum(1).mean())
    return float(translation @ precision @ translation) / max(spread, 1e-30)


def _chunks(features: Floats, classes: int) -> Iterator[Floats]:
    rows = max(1, _CELLS // max(classes, features.shape[1]))
    for start in range(0, len(features), rows):
        yield np.asarray(features[start : start + rows], np.float32)


@dataclass(frozen=True, eq=False)
class _Answers:
    """Logits of some photos and what follows from them: best classes, their responsibility and distance."""

    centred: Floats
    shares: Floats
    best: npt.NDArray[np.intp]
    best_share: Doubles
    distances: Doubles
    text_best: npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Model:
    """The classes as they are ranked in one round."""

    statistics: Statistics
    means: Doubles
    weights: Floats
    bias: Floats
    rows: Floats
    translation: Doubles
    root: Floats

    @classmethod
    def of(cls, statistics: Statistics, scale: float, known: KnownClasses, learning: Learning) -> _Model:
        counts = known.counts + learning.counts
        learned = learning.sums + learning.counts[:, None] * learning.translation
        evidence = (known.counts[:, None] * known.means + learned) / np.maximum(counts, 1e-12)[:, None]
        means = class_means(statistics, known.rows, evidence, counts, known.photos_only)
        weights, bias = composed(statistics, scale, known.rows, evidence, counts, known.photos_only)
        root = statistics.root.astype(np.float32)
        return cls(statistics, means, weights, bias, known.rows, learning.translation, root)

    def answers(self, rows: Floats, temperature: float = 1.0) -> _Answers:
        moved = rows + self.translation.astype(np.float32)
        centred = moved - self.statistics.centre
        logits = centred @ self.weights.T + self.bias
        best = logits.argmax(1)
        powers = np.exp((logits - logits.max(1, keepdims=True)) / np.float32(temperature))
        shares = (powers / powers.sum(1, keepdims=True)).astype(np.float32, copy=False)
        squares = ((centred @ self.root) ** 2).sum(1, dtype=np.float64)
        apart = (centred - (self.means - self.statistics.centre).astype(np.float32)[best]) @ self.root
        distances = (apart**2).sum(1, dtype=np.float64) / np.maximum(squares, 1e-30)
        text_best = (moved @ self.rows.T).argmax(1)
        return _Answers(centred, shares, best, shares.max(1).astype(np.float64), distances, text_best)


def _photo_weights(answers: _Answers, caution: Caution) -> Doubles:
    """Return the weight (N,) of each photo, 0 to 1."""
    weights = (answers.best_share >= caution.sure).astype(np.float64)
    if caution.agreement:
        weights[answers.text_best != answers.best] *= 1 - caution.agreement
    if caution.distance is not None:
        weights *= _soft(caution.distance - answers.distances)
    return weights


def _soft(margin: Doubles) -> Doubles:
    result: Doubles = 1 / (1 + np.exp(-np.clip(margin / _SOFT, -500, 500)))
    return result


class _Sums:
    """Sums over the photos of one round."""

    def __init__(self, classes: int, size: int) -> None:
        self.moved = np.zeros((classes, size))  # weighted rows, moved and centred
        self.counts = np.zeros(classes)
        self.won, self.held = np.zeros(classes), np.zeros(classes)

    def add(self, rows: Floats, model: _Model, caution: Caution) -> None:
        """Add some rows (N, D)."""
        answers = model.answers(rows, caution.temperature)
        weights = _photo_weights(answers, caution)
        shares = answers.shares * weights[:, None].astype(np.float32)
        self.moved += shares.T @ answers.centred
        self.counts += shares.sum(0, dtype=np.float64)
        self.won += np.bincount(answers.best, weights, len(self.counts))
        self.held += np.bincount(answers.best, weights * answers.best_share, len(self.counts))

    def learning(self, model: _Model, caution: Caution, known: KnownClasses, before: Learning) -> Learning:
        """Return what the round taught.

        Args:
            model: The classes as they were ranked.
            caution: The demands on classes.
            known: The classes.
            before: What the round before taught, whose translation is in the sums.
        """
        gates = np.ones(len(self.counts))
        if caution.held:
            gates *= self.held >= caution.held * np.maximum(self.won, 1e-12)
        counts = self.counts * gates
        moved = self.moved * gates[:, None]
        rows = moved + counts[:, None] * (model.statistics.centre - before.translation)  # as the stream has them
        translation = np.zeros(rows.shape[1])
        if caution.translates:
            residual = rows.sum(0) - counts @ model.means
            translation = -residual / (counts.sum() + _TRANSLATION_PRIOR)
        limit = np.maximum(caution.most, caution.share * known.counts)
        factor = np.minimum(caution.weight, limit / np.maximum(counts, 1e-12))
        return Learning(rows * factor[:, None], counts * factor, translation, 0, 0.0, 0.0)
