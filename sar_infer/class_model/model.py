"""The Gaussian model of unit image features: fitted in closed form, linear in an image's feature.

    x | c     ~ N(m_c, S)                                  S shared by all classes, P its shrunk inverse
    m_c       ~ N(centre + b (t_c - text_centre), S / k)   what the name predicts; without a name, the centre
    n photos:   m_c has mean (n x̄ + k m̂_c) / (n + k) and covariance v S, v = 1 / (n + k)
    unknown   ~ N(centre, S + S / k0)                      a class of which neither name nor photos are known

It is a two-covariance model, the simplest probabilistic LDA (Ioffe, ECCV 2006), with the class means of Wang et al. ("A
Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024, arXiv 2402.04087). A class is scored by

    w0 (<z, P d_c> - d_c' P d_c / 2)  +  w1 D v_c / 2  +  w2 s <x, t_c>  +  [unknown] (w3 + w0 g D (n / n̄ - 1) / 2)

with z and d_c for x and m_c less the centre: -w0/2 times its squared distance, up to what all classes share. A mean of
few photos is off by v S, which adds D v to the squared distance of every image, and w1 takes that off again. The
softmax of the scores is the probability, its last column that of an image of none of the classes. *Unknown* is wider
than a class, so far from the centre it gains on all of them: n = z' P z, n̄ is its mean over photos left out, and
g = share / (1 + k0), with the share of this gain that the folds allow.
`sar_infer.class_model.cross_validation` fits the four weights.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.errors import BankError
from sar_infer.measures import COVERAGES

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer[Any]]
USUAL = (0.053, 0.0115, 0.26, -0.67)
"""Weights w0 to w3 where there are too few classes to fit them, and the centre of their prior where there are few: the
mean of those fitted on the choosing deal of ``benchmarks.class_model``."""
USUAL_UNKNOWN = 0.35
"""Threshold for unknown images that goes with them, found in the same way."""
SPREAD = 0.6
"""Mean squared distance of a photo to its class's mean where no class has two photos: that of ``sar-mini``."""
SHRINKAGE = 3.0
"""Times that the trace of S is in the prior of P: likelier than 1 and 2 on the choosing deal; 5 was worse on DTD."""
_LEAST_PRIOR = 2.0
"""The least k where no class has two photos, since the spread is a guess then."""
RANK = 64
"""Axes of P that the distance of *unknown* resolves; the others share their mean. In float16 64 KiB at D = 512."""
_ARRAYS = ("factor", "centre", "text_centre", "weights", "axes", "unknown", "sets", "expected")
NUMBERS = ("slope", "prior", "broad", "scale", "share", "length", "photos", "rivals")
_FLAT = 1e-9
"""Relative difference below which eigenvalues of P are equal."""
_LARGEST = 1e9


@dataclass(frozen=True, eq=False)
class ClassModel:
    """The model without its classes; photos of a class move its own mean and nothing else. `from_tensors` checks it.

    Photos differ from their class's mean in at most as many directions as there are photos. With few, P is a multiple
    of the identity minus a matrix of low rank: 90 rows of D numbers for 96 photos of six classes, instead of D rows.

    Attributes:
        level: The largest eigenvalue l of P = l I - F'F; 0 if P is stored as a whole.
        factor: (R, D) float32, F, its rows orthogonal and the longest first; P itself (D, D) if the level is 0.
        centre: (D,) float32, mean over classes of their mean features.
        text_centre: (D,) float32, mean over named classes of their unit text rows.
        slope: b.
        prior: k, photos that a class's prior counts as.
        broad: k0, the same without its name.
        scale: s, the logit scale.
        photos: N, from which P was estimated; 0 if there were none.
        axes: (D, R) float16, A, R of at most `RANK`; no column if the share is 0.
        weights: (4,) float64, w0 to w3.
        share: Share of the distance of *unknown*, 0 to 1.
        length: a, by which ``n / n̄ = a |z|² - |z A|²``.
        unknown: (K, 2) float64: number of photos n, and the probability of the last column above which an image is
            called unknown if its best class has n photos; no row if there were no photos. See `unknown_threshold`.
        sets: (K, 4) float64: number of photos n, and the least probability of a class with n photos to be in a
            prediction set, for each of `COVERAGES`; no row if nothing was fitted.
        expected: (K, 3) float64: number of photos n; expected accuracy (0 to 1) on images of classes with all their
            photos, among held-out classes with n photos; that of added classes with n photos, among twice as many
            others, extrapolated. No row if nothing was fitted.
        rivals: Number of other classes that each class was ranked among for ``expected``.
    """

    level: float
    factor: Floats
    centre: Floats
    text_centre: Floats
    slope: float
    prior: float
    broad: float
    scale: float
    photos: float
    axes: npt.NDArray[np.float16]
    weights: Doubles = field(default_factory=lambda: np.array(USUAL))
    share: float = 0.0
    length: float = 0.0
    unknown: Doubles = field(default_factory=lambda: np.empty((0, 2)))
    sets: Doubles = field(default_factory=lambda: np.empty((0, 1 + len(COVERAGES))))
    expected: Doubles = field(default_factory=lambda: np.empty((0, 3)))
    rivals: float = 0.0

    def check(self) -> None:
        """Raise BankError if an array or number is out of range."""
        size = self.centre.size
        rows = min(len(self.factor), size) if self.level else size
        shapes = {"factor": (rows, size), "centre": (size,), "text_centre": (size,), "weights": (len(USUAL),)}
        shapes |= {"sets": (len(self.sets), 1 + len(COVERAGES)), "expected": (len(self.expected), 3)}
        shapes |= {"unknown": (len(self.unknown), 2), "axes": (size, min(self.axes.size // size, RANK))}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all() or float(np.abs(array).max(initial=0)) > _LARGEST:
                raise BankError(f"class model: expected finite {name} {shape}, got {array.shape}")
        numbers = [self.slope, self.prior, self.broad, self.scale, self.photos, self.rivals, self.length, self.level]
        if not all(map(math.isfinite, numbers)) or min(numbers[1:4]) <= 0 or abs(self.slope) > _LARGEST:
            raise BankError(f"class model: expected a finite slope and prior, broad and scale above 0, got {numbers}")
        if self.weights[0] < 0 or not 0 <= self.share <= 1:
            raise BankError(
                "class model: expected a weight of the distance of 0 or more and a share of 0 to 1, got "
                f"{self.weights[0]} and {self.share}"
            )
        if not self.level and not np.array_equal(self.factor, self.factor.T):
            raise BankError("class model: precision is not symmetric")
        factor = self.factor.astype(np.float64)
        try:
            np.linalg.cholesky(self.level * np.eye(len(factor)) - factor @ factor.T if self.level else factor)
        except np.linalg.LinAlgError:
            raise BankError("class model: precision is not positive definite") from None

    @functools.cached_property
    def precision(self) -> Floats:
        """Return P (D, D) float32."""
        if not self.level:
            return self.factor
        factor = self.factor.astype(np.float64)
        result: Floats = (self.level * np.eye(len(self.centre)) - factor.T @ factor).astype(np.float32)
        return result

    def times(self, rows: Doubles) -> Doubles:
        """Return rows (N, D) times P."""
        factor = self.factor.astype(np.float64)
        result: Doubles = self.level * rows - rows @ factor.T @ factor if self.level else rows @ factor
        return result

    def whole(self) -> ClassModel:
        """Return the same model with P as a whole, as bundles and one-file exports store it."""
        return dataclasses.replace(self, level=0.0, factor=self.precision)

    @functools.cached_property
    def root(self) -> Doubles:
        """Return the lower triangle L (D, D) of P = L L'; rows times L are whitened."""
        return np.linalg.cholesky(self.precision.astype(np.float64))

    @classmethod
    def unfitted(cls, dimension: int, scale: float, centre: Floats | None = None) -> ClassModel:
        """Return the model for a bundle without any: names rank by text, photos are prototypes around ``centre``."""
        zero, axes = np.zeros(dimension, np.float32), np.empty((dimension, 0), np.float16)
        level, factor = float(np.float32(dimension / SPREAD)), np.empty((0, dimension), np.float32)
        middle = zero if centre is None else centre.astype(np.float32)
        return cls(level, factor, middle, zero, 0.0, 3.0, 3.0, scale, 0.0, axes)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything as arrays, from which `from_tensors` builds the same model to the bit.

        The axes follow from level and factor; P as a whole is called ``precision``.
        """
        tensors = {one.name: np.asarray(getattr(self, one.name)) for one in fields(self)}
        if self.level:
            del tensors["axes"]
        else:
            tensors["precision"] = tensors.pop("factor")
            del tensors["level"]
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> ClassModel:
        """Build a model from the arrays of `tensors`; others are ignored.

        Raises:
            BankError: One is missing, or out of range.
        """
        try:
            level = tensors["level"].item() if "level" in tensors else 0.0
            numbers: dict[str, Any] = {name: tensors[name].item() for name in NUMBERS}
            factor = tensors["factor" if level else "precision"]
            axes = far_axes(level, factor, numbers["share"], numbers["length"]) if level else tensors["axes"]
            others: dict[str, Any] = {name: tensors[name] for name in _ARRAYS if name not in ("factor", "axes")}
            model = cls(level=level, factor=factor, axes=axes, **numbers, **others)
            model.check()
            return model
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise BankError(f"class model: {error}") from None

    @functools.cached_property
    def digest(self) -> str:
        """Return SHA-256 (hex) over all that turns features and classes into scores."""
        digest = hashlib.sha256()
        for name in (*_ARRAYS[:5], *NUMBERS[:6], *(("level",) if self.level else ())):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()

    def least(self, coverage: float, counts: npt.ArrayLike) -> Doubles | None:
        """Return the least probabilities (C,) to be in a prediction set; None if they are not known.

        Args:
            coverage: One of `COVERAGES`.
            counts: (C,) numbers of photos; between fitted numbers n, values are linear in ``log2(1 + n)``.
        """
        if not len(self.sets) or coverage not in COVERAGES:
            return None
        return _between(counts, self.sets[:, 0], self.sets[:, 1 + COVERAGES.index(coverage)])

    def unknown_threshold(self, counts: npt.ArrayLike) -> Doubles:
        """Return the probability of *unknown* (C,) above which an image is called so; NaN if none is known.

        Args:
            counts: (C,) numbers of photos of the class that scores highest; values are interpolated as in `least`.
        """
        if not len(self.unknown):
            return np.full(np.shape(counts), np.nan)
        return _between(counts, *self.unknown.T)

    @property
    def gain(self) -> float:
        """Return ``w0 g D / 2``, by which the distance of *unknown* is multiplied in its score."""
        return float(self.weights[0]) * self.share / (1 + self.broad) * len(self.centre) / 2


def _between(counts: npt.ArrayLike, knots: Doubles, values: Doubles) -> Doubles:
    """Return values at numbers of photos (C,), linear in ``log2(1 + n)`` between those at the knots."""
    photos = np.log2(1.0 + np.asarray(counts, np.float64))
    result: Doubles = np.interp(photos, np.log2(1.0 + knots), values)
    return result


def low_rank(precision: Doubles) -> tuple[float, Floats]:
    """Return level and factor of P (D, D); 0 and P itself if fewer than half of its eigenvalues are equal."""
    values, vectors = np.linalg.eigh(precision)
    rank = int(np.count_nonzero(values < (1 - _FLAT) * values[-1]))
    if rank > len(values) // 2:
        return 0.0, precision.astype(np.float32)
    level = float(values[rank:].mean())
    return level, (vectors[:, :rank] * np.sqrt(level - values[:rank])).T.astype(np.float32)


def far_length(level: float, factor: Floats) -> float:
    """Return the mean eigenvalue of P in the directions that the distance of *unknown* does not resolve."""
    squares = float((factor[RANK:].astype(np.float64) ** 2).sum())
    return level - squares / max(int(factor.shape[1]) - min(RANK, len(factor)), 1)


def far_axes(level: float, factor: Floats, share: float, length: float) -> npt.NDArray[np.float16]:
    """Return the axes (D, R) of the distance of *unknown* of P in low rank; no column if the share is 0."""
    rows, rest = factor[: RANK if share else 0].astype(np.float64), far_length(level, factor)
    with np.errstate(all="ignore"):  # `check` refuses what is not finite
        squares = (rows**2).sum(axis=1)
        scale = np.sqrt(np.maximum(rest - level + squares, 0.0) * length / rest / squares)
        result: npt.NDArray[np.float16] = np.ascontiguousarray((rows * scale[:, np.newaxis]).T, np.float16)
        return result


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The closed-form part in float64, in D dimensions or in the span of few photos; see `gaussian`."""

    precision: Doubles
    centre: Doubles
    text_centre: Doubles
    slope: float
    prior: float
    broad: float
    photos: int


@dataclass(frozen=True, eq=False)
class Rivals:
    """R classes whose photos are not at hand, and which compete all the same.

    Attributes:
        texts: (R, D) unit text rows.
        means: (R, D) mean features of the photos that they had; ignored where the count is 0.
        counts: (R,) their numbers, 0 for classes known only by name.
        model: The model that was fitted to these photos, whose covariance is pooled; None if there were none.
    """

    texts: Doubles
    means: Doubles
    counts: Doubles
    model: ClassModel | None = None


def gaussian(
    rows: Doubles,
    labels: Labels,
    texts: Doubles,
    named: Flags,
    *,
    rivals: Rivals | None = None,
    size: int = 0,
    spread: float = 0.0,
) -> Gaussian:
    """Fit the closed-form part.

    P is ``(N - 1 + c D) ((N - 1) S + c tr(S) I)^-1`` of the pooled covariance S within classes, c = `SHRINKAGE` (1 in
    Wang et al., equation 8). b is least squares over classes; k and k0 equate the mean squared distance of class means
    to what the name predicts, and to the centre, with its expectation ``tr(S) (1/k + 1/n)``.

    Args:
        rows: (N, D) unit features, at least one of each class.
        labels: (N,) 0 to C - 1.
        texts: (C, D) unit text rows.
        named: (C,) False for classes whose text row means nothing.
        rivals: Classes whose means and covariance are pooled, if they had photos.
        size: The dimension that the model has outside of the span of ``rows``; 0 is D.
        spread: tr(S) where no class has two photos; 0 estimates it from the distances to the centre.
    """
    size = size or rows.shape[1]
    counts = np.bincount(labels, minlength=len(texts)).astype(np.float64)
    means = np.zeros(texts.shape)
    np.add.at(means, labels, rows)
    means /= counts[:, None]
    apart, photos = rows - means[labels], len(rows)
    free = photos - len(texts)
    scatter = apart.T @ apart
    if rivals is not None and rivals.model is not None:
        had = rivals.counts > 0
        means, counts = np.concatenate([means, rivals.means[had]]), np.concatenate([counts, rivals.counts[had]])
        texts = np.concatenate([texts, rivals.texts[had]])
        named = np.concatenate([named, np.ones(int(had.sum()), np.bool_)])
        before = int(rivals.model.photos)
        if before > had.sum():
            scatter = scatter + (before - had.sum()) * covariance(rivals.model)
            photos, free = photos + before, free + before - int(had.sum())
    scatter /= max(free, 1)
    centre = means.mean(0)
    text_centre = texts[named].mean(0) if named.any() else np.zeros(len(centre))
    trace, least = float(np.trace(scatter)), 0.0
    if trace < 1e-9:  # one photo of each class, or all the same
        if not spread:
            least = _LEAST_PRIOR
            spread = float(((rows - centre) ** 2).sum(1).mean()) / 2 if len(means) > 1 else SPREAD
        spread, photos = max(spread, 1e-3), 1
        precision = np.eye(len(centre)) * (size / spread)
    else:
        spread, prior_photos = trace, SHRINKAGE * size
        ridge = SHRINKAGE * spread * np.eye(len(centre))
        precision = np.linalg.inv((photos - 1) * scatter + ridge) * (photos - 1 + prior_photos)
    predicted, images = np.where(named[:, None], texts - text_centre, 0.0), means - centre
    power = float((predicted**2).sum())
    slope = float((predicted * images).sum()) / power if power > 1e-9 else 0.0
    noise, classes = spread * float((1 / counts).mean()), len(means)

    def photos_of(apart: Doubles) -> float:
        variance = float((apart**2).sum(1).mean()) * classes / max(classes - 1, 1) - noise
        return spread / max(variance, 0.01 * spread)

    prior, broad = max(photos_of(images - slope * predicted), least), photos_of(images)
    return Gaussian((precision + precision.T) / 2, centre, text_centre, slope, prior, broad, photos)


def covariance(model: ClassModel) -> Doubles:
    """Return S (D, D) of a model: the trace of P^-1 is that of S."""
    inverse, size, photos = np.linalg.inv(model.precision.astype(np.float64)), len(model.centre), model.photos
    ridge = SHRINKAGE * np.trace(inverse) * np.eye(size)
    result: Doubles = ((photos - 1 + SHRINKAGE * size) * inverse - ridge) / (photos - 1)
    return result


def apart(
    model: ClassModel | Gaussian,
    texts: npt.NDArray[Any],
    sums: Doubles,
    counts: npt.ArrayLike,
    named: Flags | None = None,
) -> tuple[Doubles, Doubles]:
    """Return the means d (C, D) of classes less the centre, and v (C,).

    Args:
        model: The model.
        texts: (C, D) unit text rows.
        sums: (C, D) sums of the photos' features less the centre.
        counts: (C,) their numbers, 0 or more; photos without labels count as parts of one.
        named: (C,) False for classes whose text row means nothing; None for none.
    """
    photos = np.asarray(counts, np.float64)
    predicted = texts.astype(np.float64) - model.text_centre
    if named is not None:
        predicted[~named] = 0.0
    means = (sums + model.prior * model.slope * predicted) / (photos + model.prior)[:, None]
    return means, 1 / (photos + model.prior)


def linear(
    model: ClassModel,
    texts: npt.NDArray[Any],
    means: npt.NDArray[Any],
    counts: npt.ArrayLike,
    named: Flags | None = None,
    shift: npt.NDArray[Any] | None = None,
) -> tuple[Floats, Floats]:
    """Return weights (C + 1, D) and bias (C + 1,) of scores, the last column unknown; see `scores_of`.

    Args:
        model: The model.
        texts: (C, D) unit text rows.
        means: (C, D) mean features of the classes' photos; ignored where the count is 0.
        counts: (C,) numbers of photos.
        named: (C,) False for classes whose text row means nothing; None for none.
        shift: (D,) is added to every image first; None for nothing.
    """
    size, photos = len(model.centre), np.asarray(counts, np.float64)
    weights, bias = np.empty((len(texts) + 1, size), np.float32), np.empty(len(texts) + 1, np.float32)
    middle = model.text_centre.astype(np.float64)
    first, second, third, fourth = model.weights.tolist()
    moved = np.zeros(size) if shift is None else shift.astype(np.float64)
    for start in range(0, len(texts), 8192):
        chunk = slice(start, min(start + 8192, len(texts)))
        some = None if named is None else named[chunk]
        with np.errstate(invalid="ignore"):
            sums = np.where(photos[chunk, None] > 0, photos[chunk, None] * (means[chunk] - model.centre), 0.0)
        d, v = apart(model, texts[chunk], sums, photos[chunk], some)
        image = first * model.times(d)
        rows = texts[chunk].astype(np.float64)
        rows = rows if some is None else np.where(some[:, None], rows, middle)
        whole = image + third * model.scale * rows
        weights[chunk] = whole
        bias[chunk] = second * size * v / 2 - (image * d).sum(1) / 2 - image @ model.centre + whole @ moved
    last, offset = third * model.scale * middle, second * size / model.broad / 2 + fourth
    if model.gain:  # of unit images x, |z|² = 1 - 2 <x, o> + |o|² with z = x - o; what is square in x is in `scores_of`
        away, axes = model.centre - moved, model.axes.astype(np.float64)
        along = away @ axes
        length = model.length
        last = last + 2 * model.gain * (axes @ along - length * away)
        offset += model.gain * (length * (1 + float(away @ away)) - float(along @ along) - 1)
    weights[-1], bias[-1] = last, offset + third * model.scale * float(middle @ moved)
    return weights, bias


def scores_of(
    model: ClassModel, images: npt.NDArray[Any], weights: npt.NDArray[Any], bias: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return the scores (N, C + 1) of unit images (N, D) by weights and bias of `linear`."""
    scores: npt.NDArray[Any] = images @ weights.T + bias
    if model.gain:
        along = images.astype(np.float32) @ model.axes.astype(np.float32)
        scores[:, -1] -= np.float32(model.gain) * (along**2).sum(1)
    return scores


def log_probabilities(scores: npt.NDArray[Any]) -> Doubles:
    """Return the log-softmax over the last axis, in float64."""
    values = scores.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    result: Doubles = values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return result
