"""Adapt the classes to photos without labels: EM on the class model, with a component for unknown images.

A photo counts for a class by its probability, times `UNLABELLED`, as parts of labelled photos do, so that the class's
mean becomes ``(n x̄ + Σ r x + k m̂) / (n + Σ r + k)``. Unknown images are a Gaussian whose share and covariance are
learned too: around the centre, with an inverse Wishart prior at what a class without name and photos would show. A name
stays the anchor of its class by k photos, as in StatA (Zanella et al., CVPR 2025, arXiv 2501.03729); the mixture with
one shared covariance and text is that of TransCLIP (Zanella et al., NeurIPS 2024, arXiv 2406.01837).

Two gates: photos of another kind teach nothing, see `shared_shift`. A class known only by name learns nothing if most
photos that score for it are of other classes, see `own_shares`. With ``all_known``, for streams in which every photo is
of one of the classes, there is no unknown component, photos count whole, and one translation of all photos, the share
of their camera, is learned as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.class_model.model import ClassModel, Doubles, Flags, apart, linear, log_probabilities

UNLABELLED = 0.1
"""Labelled photos that a photo without label counts as."""
UNKNOWN_PRIOR = 3.0
"""Photos, for each dimension, that the prior of the unknown images' covariance counts as."""
SAME_KIND = 0.2
"""Value of `shared_shift` from which on nothing is learned from a stream."""
LEAST = 20
"""Photos that `shared_shift` needs, four groups of five: from fewer nothing is learned without ``all_known``."""
OWN = 0.5
"""Value of `own_shares` below which a class known only by name learns nothing: most of its photos are of others."""
ROUNDS = 8
_FOLD_ODDS = -float(np.log(6))
"""Log-odds of unknown images in the folds (a seventh of all), which the fitted weights hold already."""
_CELLS = 2**22
_SAMPLE = 4096


@dataclass(frozen=True, eq=False)
class Classes:
    """C classes as labelled photos and names know them.

    Attributes:
        texts: (C, D) unit text rows.
        means: (C, D) mean features of labelled photos; ignored where there are none.
        counts: (C,) their numbers.
        named: (C,) False for classes whose name means nothing.
    """

    texts: Floats
    means: Floats
    counts: npt.NDArray[np.float64]
    named: Flags

    def sums(self, model: ClassModel) -> Doubles:
        """Return the sums (C, D) of labelled photos less the centre."""
        return np.where(self.counts[:, None] > 0, self.counts[:, None] * (self.means - model.centre), 0.0)


@dataclass(frozen=True, eq=False)
class Adapted:
    """Result of `adapt`.

    Attributes:
        sums: (C, D) weighted sums of the stream's features, as they are after the translation.
        counts: (C,) labelled photos that the stream counts as for each class.
        translation: (D,) is added to every image before it is ranked.
        photos: N.
        shift: `shared_shift` of the stream.
        unknown: Share of the stream that is of no class; 0 with ``all_known``.
    """

    sums: Doubles
    counts: Doubles
    translation: Doubles
    photos: int
    shift: float
    unknown: float

    def classes(self, known: Classes) -> Classes:
        """Return the classes with what the stream teaches."""
        counts = known.counts + self.counts
        sums = np.where(known.counts[:, None] > 0, known.counts[:, None] * known.means, 0.0) + self.sums
        return Classes(known.texts, (sums / np.maximum(counts, 1e-12)[:, None]).astype(np.float32), counts, known.named)


def adapt(
    model: ClassModel,
    known: Classes,
    features: Floats,
    *,
    all_known: bool = False,
    progress: Callable[[int], object] = lambda rows: None,
) -> Adapted:
    """Adapt classes to photos without labels.

    Memory does not grow with N: ``features`` may be a memory map. Nothing is random.

    Args:
        model: The class model.
        known: The classes.
        features: (N, D) unit features of the stream.
        all_known: Every photo is of one of the classes.
        progress: Called with the number of embeddings whenever some have been processed.
    """
    classes, size = known.texts.shape
    nothing = Adapted(np.zeros((classes, size)), np.zeros(classes), np.zeros(size), len(features), 0.0, 0.0)
    if not len(features) or not classes:
        return nothing
    means = apart(model, known.texts, known.sums(model), known.counts, known.named)[0]
    by_name = np.flatnonzero(known.counts == 0)
    shift = shared_shift(model, means, features)
    learned = Adapted(nothing.sums, nothing.counts, nothing.translation, len(features), shift, 0.0)
    if not all_known and (shift >= SAME_KIND or len(features) < LEAST):
        return learned
    model = dataclasses.replace(model, share=0.0)  # the component of unknown images has a distance of its own
    broad, prior = 1 + 1 / model.broad, UNKNOWN_PRIOR * size
    covariance, odds, share = broad * np.eye(size), 0.0, 0.0
    for _ in range(ROUNDS):
        now = learned.classes(known)
        weights, bias = linear(model, now.texts, now.means, now.counts, now.named, learned.translation)
        if not all_known:
            lower = np.linalg.cholesky(covariance)
            inverse, volume = np.linalg.inv(lower).T, 2 * float(np.log(np.diag(lower)).sum())
        sums, counts, plain = np.zeros((classes, size)), np.zeros(classes), np.zeros(size)
        scatter, strange, others = np.zeros((size, size)), 0.0, np.zeros((len(by_name), size))
        for rows in _chunks(features, classes):
            scores = (rows @ weights.T + bias).astype(np.float64)
            if all_known:
                scores[:, -1] = -np.inf
            else:
                white = (rows + learned.translation - model.centre) @ model.root
                far, near = ((white @ inverse) ** 2).sum(1) + volume, (white**2).sum(1)
                scores[:, -1] += odds + model.weights[0] * (near / broad + size * np.log(broad) - far) / 2
            shares = np.exp(log_probabilities(scores))
            if not all_known:
                scatter = scatter + (white * shares[:, -1:]).T @ white
                others += of_others(shares[:, :-1], means, by_name)
            sums += shares[:, :-1].T @ rows
            counts += shares[:, :-1].sum(0)
            strange += float(shares[:, -1].sum())
            plain += rows.sum(0, dtype=np.float64)
            progress(len(rows))
        translation = learned.translation
        if all_known:
            expected = apart(model, now.texts, now.sums(model), now.counts, now.named)[0] + model.centre
            translation = (counts @ expected - plain) / (len(features) + model.prior)
        else:
            shown = sums[by_name] - counts[by_name, None] * model.centre
            few = by_name[own_shares(model, means[by_name], counts[by_name], shown, others) < OWN]
            sums[few], counts[few] = 0.0, 0.0
            sums, counts = UNLABELLED * sums, UNLABELLED * counts
            covariance = (broad * prior * np.eye(size) + scatter) / (prior + strange)
            odds = float(np.log((strange + 1) / (len(features) - strange + 1))) - _FOLD_ODDS
            share = strange / len(features)
        learned = Adapted(sums + counts[:, None] * translation, counts, translation, len(features), shift, share)
    return learned


def of_others(shares: Doubles, means: Doubles, some: npt.NDArray[np.intp]) -> Doubles:
    """Return for some classes (K, D) the sum of what the other classes expect of the photos that score for each.

    A photo that scores p for a class counts p, and shows what the other classes expect if this one is left out.

    Args:
        shares: (N, C) probabilities; the rest of each row is that of unknown images, which are around the centre.
        means: (C, D) class means less the centre.
        some: (K,) classes.
    """
    own = shares[:, some]
    odds = own / np.maximum(1 - own, 1e-9)
    result: Doubles = odds.T @ (shares @ means) - (odds * own).sum(0)[:, None] * means[some]
    return result


def own_shares(model: ClassModel, means: Doubles, counts: Doubles, sums: Doubles, others: Doubles) -> Doubles:
    """Return how many (K,) of the photos that score for a class are its own: a share, below 0 to above 1.

    Their mean lies by that share between what the other classes expect of these photos and what the class expects. It
    does not depend on the number of photos, so that a stream of other classes teaches nothing, however long it is.

    Args:
        model: The class model.
        means: (K, D) class means less the centre.
        counts: (K,) photos that score for each.
        sums: (K, D) their features less the centre.
        others: (K, D) from `of_others`.
    """
    photos = np.maximum(counts, 1e-12)[:, None]
    way, gone = (means - others / photos) @ model.root, ((sums - others) / photos) @ model.root
    result: Doubles = (way * gone).sum(1) / np.maximum((way**2).sum(1), 1e-12)
    return result


def shared_shift(model: ClassModel, means: Doubles, features: Floats) -> float:
    """Return which share of the shift of groups of photos all groups have in common, 0 or less to 1.

    Photos are grouped by k-means. What lies in the span of class means says which classes a group has, so it is taken
    off; in the rest, ``mean of <e_i, e_j> over pairs / mean of <e_i, e_i>`` is near 0 if groups differ each in its own
    way, as classes do, and near 1 if one thing moved them all, as a camera does. Inner products are those of P.

    Args:
        model: The class model.
        means: (C, D) class means less the centre.
        features: (N, D) unit features; some thousand, evenly spaced, are looked at.
    """
    points = (np.asarray(features[:: max(1, len(features) // _SAMPLE)], np.float64) - model.centre) @ model.root
    count = max(2, min(len(means), len(points) // 5, 20))
    if len(points) < 2 * count:
        return 0.0
    _, lengths, axes = np.linalg.svd(means @ model.root, full_matrices=False)
    span = axes[lengths > 1e-6 * max(lengths.max(), 1e-30)]
    shares = []
    for seed in range(3):
        groups = _groups(points, count, np.random.default_rng(seed))
        sizes = np.bincount(groups, minlength=count)
        numbers = np.flatnonzero(sizes >= 2)
        if len(numbers) < 2:
            shares.append(0.0)
            continue
        centres = np.array([points[groups == number].mean(0) for number in numbers])
        centres -= (centres @ span.T) @ span
        weights = sizes[numbers] / (sizes[numbers] + 5.0)
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
    for _ in range(15):
        groups = (points @ centres.T - (centres**2).sum(1) / 2).argmax(1)
        for number in range(count):
            if (groups == number).any():
                centres[number] = points[groups == number].mean(0)
    return groups


def _chunks(features: Floats, classes: int) -> Iterator[Floats]:
    rows = max(1, _CELLS // max(classes, features.shape[1]))
    for start in range(0, len(features), rows):
        yield np.asarray(features[start : start + rows], np.float32)
