"""Class statistics: a Gaussian model of the image features, which ranks names and photos together.

Each class has a mean, and all share one precision matrix P (Wang et al., "A Hard-to-Beat Baseline for Training-free
CLIP-based Adaptation", ICLR 2024, arXiv 2402.04087). With ``z = x - centre`` and ``d_c = m_c - centre``::

    logit_c(x) = s <x, t_c> + alpha (<z, P d_c> - d_c' P d_c / 2) - g(n_c)

``t_c`` is the unit text row, ``s`` the logit scale, ``m_c`` the class's mean, ``n_c`` its number of photos. This is the
log-likelihood of the Gaussian up to one constant for each image; measured from the centre, no digits are lost. Sums
of a class are taken in float64, those of an image in float32.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, products
from sar_infer.classifiers.confidence import Confidence
from sar_infer.errors import BankError
from sar_infer.storage.named_tensors import read_only
from sar_infer.storage.tensor_file import tensor_bytes

PRIOR = 2.0
"""Photos that the mean predicted from a class's name counts as."""
_DEFAULT_PRECISION = 3.0
"""Diagonal of P, for each unit of the logit scale, where nothing is known about the features."""
_DEFAULT_OFFSETS = (0.3, 0.1)
"""Offset of classes with photos, for each unit of the logit scale, where nothing was fitted: without a centre, whose
share all images have in common, and with one. Chosen on 25 + 25 of Caltech101's base classes and on the garments'
training photos, see docs/statistics.md."""
_CHUNK = 8192
"""Rows that are worked on at once in float64."""
_UNIT = 1.001
_LARGEST, _LARGEST_PRECISION = 1e6, 1e9
"""More than any fit gives; with these all logits are finite in float32."""
_ARRAYS = ("precision", "centre", "text_centre", "means", "counts", "offsets", "curve")
_NUMBERS = ("slope", "alpha", "prior", "separation")
_TEXT = "text_"
CONFIDENCE = ("confidence", "conformal", "text_confidence", "text_conformal")
"""Tensors that statistics may have or lack."""
Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Statistics:
    """The image statistics of a bundle; checked when built, so that all statistics are sound.

    Nothing in it changes when photos are added to a class: they move that class's mean, and nothing else.

    Attributes:
        precision: (D, D) float32, P: symmetric, positive definite, read-only.
        centre: (D,) float32, the mean over trained classes of their mean image features.
        text_centre: (D,) float32, the mean over trained classes of their unit text rows under the bundle's prompt.
        slope: b of the mean that a name predicts, ``centre + b (t_c - text_centre)``; 0 predicts the centre.
        alpha: Weight of the image term, at least 0; at 0 only text counts.
        prior: k, the number of photos that the predicted mean counts as, above 0.
        offsets: Pairs (n, g): what is subtracted from the logit of a class with n photos. The first is (0, 0).
        curve: (shift, accuracy on trained classes, accuracy on left-out classes named only), in per cent, for shifts
            of g in rising order; empty if no class could be left out.
        means: (C, D) float32, the mean unit feature of each trained class's photos, read-only.
        counts: (C,) int64, the photos of each trained class.
        separation: Factor from the distance of two means under P to the distance of their classes in standard
            deviations; see `confusion`.
        confidence: How far scores of text and statistics can be trusted; None if it is not known.
        text_confidence: The same of text alone.

    Raises:
        BankError: Any of this does not hold.
    """

    precision: Floats
    centre: Floats
    text_centre: Floats
    slope: float
    alpha: float
    prior: float
    offsets: tuple[tuple[int, float], ...]
    curve: tuple[tuple[float, float, float], ...]
    means: Floats
    counts: Counts
    separation: float = 1.0
    confidence: Confidence | None = None
    text_confidence: Confidence | None = None

    @functools.cached_property
    def image_map(self) -> Floats:
        """Return ``alpha b P`` (D, D), symmetric, which takes an image's row to what it adds to its query."""
        result: Floats = (self.alpha * self.slope * self.precision.astype(np.float64)).astype(np.float32)
        return result

    @functools.cached_property
    def root(self) -> Doubles:
        """Return the lower triangle L (D, D) of ``P = L L'``: lengths under P are those of rows times L."""
        return np.linalg.cholesky(self.precision.astype(np.float64))

    def __post_init__(self) -> None:
        size = self.centre.shape[0] if self.centre.ndim == 1 else -1
        count = len(self.counts) if self.counts.ndim == 1 else -1
        for name, shape in (
            ("precision", (size, size)),
            ("centre", (size,)),
            ("text_centre", (size,)),
            ("means", (count, size)),
        ):
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != shape or not size:
                raise BankError(f"statistics: expected float32 {shape} {name}, got {array.dtype} {array.shape}")
            if not np.isfinite(array).all():
                raise BankError(f"statistics: {name} is not finite")
            if name != "precision" and not (np.linalg.norm(array.astype(np.float64), axis=-1) <= _UNIT).all():
                raise BankError(f"statistics: expected {name} of unit rows, whose length is at most 1")
            object.__setattr__(self, name, read_only(array))
        if self.counts.dtype != np.int64 or count < 0 or (self.counts < 0).any():
            raise BankError("statistics: expected an int64 number of photos, 0 or more, of each trained class")
        object.__setattr__(self, "counts", read_only(self.counts))
        self._check_numbers()
        if np.abs(self.precision).max() > _LARGEST_PRECISION:
            raise BankError(f"statistics: precision is above {_LARGEST_PRECISION:g}")
        if not np.array_equal(self.precision, self.precision.T):
            raise BankError("statistics: precision is not symmetric")
        try:
            np.linalg.cholesky(self.precision.astype(np.float64))
        except np.linalg.LinAlgError:
            raise BankError("statistics: precision is not positive definite") from None

    def _check_numbers(self) -> None:
        numbers = (self.slope, self.alpha, self.prior, self.separation)
        if not all(map(math.isfinite, numbers)) or self.alpha < 0 or self.prior <= 0 or self.separation <= 0:
            raise BankError(
                "statistics: expected finite slope, alpha >= 0, prior > 0 and separation > 0, "
                f"got {self.slope}, {self.alpha}, {self.prior} and {self.separation}"
            )
        if max(abs(self.slope), self.alpha, *(abs(g) for _, g in self.offsets)) > _LARGEST:
            raise BankError(
                f"statistics: expected slope, alpha and offsets of at most {_LARGEST:g}, so that logits are finite"
            )
        photos = [photos for photos, _ in self.offsets]
        if not self.offsets or tuple(self.offsets[0]) != (0, 0) or photos != sorted(set(photos)):
            raise BankError("statistics: expected offsets (n, g) with rising n from (0, 0) on")
        if not all(math.isfinite(g) for _, g in self.offsets):
            raise BankError("statistics: offsets are not finite")
        shifts = [point[0] for point in self.curve]
        if not np.isfinite(np.array(self.curve, dtype=np.float64)).all() or shifts != sorted(shifts):
            raise BankError("statistics: expected a finite curve, its shifts in rising order")

    @classmethod
    def default(
        cls,
        dimension: int,
        centre: Floats | None = None,
        scale: float = 20.0,
    ) -> Statistics:
        """Return statistics for a bundle that has none: names rank by text alone, photos are prototypes.

        P is a scaled identity and the slope is 0, so that the image term of a class without photos is exactly 0 for
        every image. Classes with photos have an offset, or they would take the images of all others.

        Args:
            dimension: D.
            centre: (D,) mean image feature, if it is known; None is the origin.
            scale: The logit scale; P grows with it, so that photos and names weigh the same under any.
        """
        zero = np.zeros(dimension, dtype=np.float32)
        return cls(
            np.eye(dimension, dtype=np.float32) * np.float32(_DEFAULT_PRECISION * scale),
            zero if centre is None else centre,
            zero,
            slope=0.0,
            alpha=1.0,
            prior=PRIOR,
            offsets=((0, 0.0), (1, _DEFAULT_OFFSETS[centre is not None] * scale)),
            curve=(),
            means=np.zeros((0, dimension), dtype=np.float32),
            counts=np.zeros(0, dtype=np.int64),
        )

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything as arrays, from which `from_tensors` builds the same statistics to the bit."""
        values: dict[str, Any] = {name: getattr(self, name) for name in (*_ARRAYS, *_NUMBERS)}
        values["offsets"] = np.array(self.offsets, dtype=np.float64).reshape(len(self.offsets), 2)
        values["curve"] = np.array(self.curve, dtype=np.float64).reshape(len(self.curve), 3)
        values |= {} if self.confidence is None else self.confidence.tensors()
        values |= {} if self.text_confidence is None else self.text_confidence.tensors(_TEXT)
        return {name: np.asarray(value) for name, value in values.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Statistics:
        """Build statistics from the arrays of `tensors`; others are ignored.

        Raises:
            BankError: One is missing, or they are unsound.
        """
        if missing := [name for name in (*_ARRAYS, *_NUMBERS) if name not in tensors]:
            raise BankError(f"statistics: no tensor {missing[0]!r}")
        fields: dict[str, Any] = {name: tensors[name] for name in _ARRAYS}
        offsets, curve = fields["offsets"], fields["curve"]
        if offsets.ndim != 2 or offsets.shape[1] != 2 or not np.isfinite(offsets).all():
            raise BankError(f"statistics: expected finite offsets (K, 2), got {offsets.shape}")
        if curve.ndim != 2 or curve.shape[1] != 3:
            raise BankError(f"statistics: expected a curve (K, 3), got {curve.shape}")
        if any(tensors[name].shape != () for name in _NUMBERS):
            raise BankError(f"statistics: expected single numbers {', '.join(_NUMBERS)}")
        fields["offsets"] = tuple((int(n), float(g)) for n, g in offsets.tolist())
        fields["curve"] = tuple((float(a), float(b), float(c)) for a, b, c in curve.tolist())
        fields.update({name: float(tensors[name]) for name in _NUMBERS})
        fields["confidence"] = Confidence.from_tensors(tensors)
        fields["text_confidence"] = Confidence.from_tensors(tensors, _TEXT)
        return cls(**fields)

    def offset(self, counts: npt.ArrayLike, shift: float = 0.0) -> Doubles:
        """Return g of classes with so many photos, of the shape of ``counts``.

        Between the fitted numbers of photos g is linear in ``log2(1 + n)``, beyond the last it is constant.

        Args:
            counts: Numbers of photos, 0 or more.
            shift: Is added for every class that has photos.
        """
        photos = np.asarray(counts, dtype=np.float64)
        knots = np.log2(1.0 + np.array([n for n, _ in self.offsets], dtype=np.float64))
        offsets = np.interp(np.log2(1.0 + photos), knots, [g for _, g in self.offsets])
        result: Doubles = np.where(photos > 0, offsets + shift, 0.0)
        return result


def predicted_means(statistics: Statistics, text_rows: Floats, photos_only: Flags | None = None) -> Doubles:
    """Return the means (K, D) that names predict, ``centre + b (t_c - text_centre)``; the centre for photos alone.

    Args:
        statistics: The bundle's.
        text_rows: (K, D) unit text rows.
        photos_only: (K,) True for classes whose name means nothing; None for none.
    """
    centre = statistics.centre.astype(np.float64)
    return centre + statistics.slope * (_named(statistics, text_rows, photos_only) - statistics.text_centre)


def class_means(
    statistics: Statistics,
    text_rows: Floats,
    photo_means: npt.NDArray[Any],
    counts: npt.ArrayLike,
    photos_only: Flags | None = None,
) -> Doubles:
    """Return the means (K, D) of classes, ``(n x̄ + k m̂) / (n + k)``.

    Args:
        statistics: The bundle's.
        text_rows: (K, D) unit text rows.
        photo_means: (K, D) mean unit feature of each class's photos; ignored where the count is 0.
        counts: (K,) numbers of photos.
        photos_only: (K,) True for classes whose name means nothing; None for none.
    """
    photos = np.asarray(counts, dtype=np.float64)[:, None]
    predicted = predicted_means(statistics, text_rows, photos_only)
    observed = np.where(photos > 0, photo_means, predicted).astype(np.float64)
    result: Doubles = (photos * observed + statistics.prior * predicted) / (photos + statistics.prior)
    return result


def composed(
    statistics: Statistics,
    scale: float,
    text_rows: Floats,
    photo_means: npt.NDArray[Any],
    counts: npt.ArrayLike,
    photos_only: Flags | None = None,
    shift: float = 0.0,
) -> tuple[Floats, Floats]:
    """Return weights (K, D) and bias (K,) with which ``<x - centre, weights_c> + bias_c`` is the logit of class c.

    Args:
        statistics: The bundle's.
        scale: s, the logit scale.
        text_rows: (K, D) unit text rows.
        photo_means: (K, D) mean unit feature of each class's photos; ignored where the count is 0.
        counts: (K,) numbers of photos; those without labels may count as parts of one.
        photos_only: (K,) True for classes whose name means nothing; they take the mean text row. None for none.
        shift: Is added to g of every class that has photos.
    """
    photos = np.asarray(counts, dtype=np.float64)
    weights = np.empty(text_rows.shape, dtype=np.float32)
    bias = np.empty(len(text_rows), dtype=np.float32)
    precision, centre = statistics.precision.astype(np.float64), statistics.centre.astype(np.float64)
    for start in range(0, len(text_rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        without = None if photos_only is None else photos_only[chunk]
        text = _named(statistics, text_rows[chunk], without)
        means = class_means(statistics, text_rows[chunk], photo_means[chunk], photos[chunk], without)
        apart = means - centre
        image = statistics.alpha * (apart @ precision)
        weights[chunk] = scale * text + image
        bias[chunk] = (
            scale * (text @ centre) - (image * apart).sum(axis=1) / 2 - statistics.offset(photos[chunk], shift)
        )
    return weights, bias


def transformed_queries(statistics: Statistics, scale: float, features: Floats) -> tuple[Floats, Floats]:
    """Return queries (N, D) and constants (N,) for classes that have no photos.

    ``<query, t_c> + constant + named_bias(t_c)`` is the logit of `composed` for a class added by name, so that a
    million text rows need no second matrix: ``query = (s I + alpha b P) x - alpha b P centre``.

    Args:
        statistics: The bundle's.
        scale: s, the logit scale.
        features: (N, D) unit image features.
    """
    apart: Floats = features - statistics.centre
    image = products(apart, statistics.image_map)
    queries: Floats = features * np.float32(scale)
    queries += image
    constants: Floats = image @ -statistics.text_centre
    return queries, constants


def named_bias(statistics: Statistics, text_rows: Floats) -> Floats:
    """Return the bias (K,) of classes added by name, ``-alpha b² (t_c - t̄)' P (t_c - t̄) / 2``, for (K, D) text rows."""
    bias = np.zeros(len(text_rows), dtype=np.float32)
    factor = -statistics.alpha * statistics.slope**2 / 2
    if factor:  # squares of the rows under a root of P, in float32: all add up, so that no digits are lost
        root = statistics.root.astype(np.float32)
        for start in range(0, len(text_rows), _CHUNK):
            apart = (text_rows[start : start + _CHUNK] - statistics.text_centre) @ root
            bias[start : start + _CHUNK] = factor * np.einsum("ij,ij->i", apart, apart)
    return bias


def confusion(statistics: Statistics, means: npt.NDArray[Any], others: npt.NDArray[Any]) -> Doubles:
    """Return the expected share (K, L) of images of one of two classes that lie nearer to the other, 0..0.5.

    It is Φ(-d/2) with ``d² = (m_i - m_j)' P (m_i - m_j)``, d times `Statistics.separation`: the Bayes error of two
    Gaussians that share their covariance and are as frequent.

    Args:
        statistics: The bundle's.
        means: (K, D) class means.
        others: (L, D) class means to compare with.
    """
    left, right = ((points.astype(np.float64) - statistics.centre) @ statistics.root for points in (means, others))
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
    halves = statistics.separation * np.sqrt(np.maximum(squares, 0.0)) / 2
    errors = np.vectorize(math.erfc, otypes=[np.float64])(halves / math.sqrt(2)) / 2
    result: Doubles = errors if len(means) and len(right) else np.zeros((len(left), len(right)))
    return result


def mahalanobis(statistics: Statistics, apart: npt.NDArray[Any]) -> Doubles:
    """Return the length (N,) under P of each difference (N, D) between two features."""
    values: Doubles = apart.astype(np.float64)
    squares = ((values @ statistics.precision.astype(np.float64)) * values).sum(axis=1)
    result: Doubles = np.sqrt(np.maximum(squares, 0.0))
    return result


def _named(statistics: Statistics, text_rows: Floats, photos_only: Flags | None) -> Doubles:
    """Return the text rows in float64; classes known by photos alone have the mean text row."""
    rows = text_rows.astype(np.float64)
    if photos_only is not None:
        rows[np.asarray(photos_only, dtype=np.bool_)] = statistics.text_centre
    return rows


def model_digest(statistics: Statistics | None, scale: float) -> str:
    """Return SHA-256 (hex) over all that turns features and classes into logits; photos of classes are no part of it.

    Args:
        statistics: The bundle's; None if it has none.
        scale: The logit scale.
    """
    digest = hashlib.sha256(np.float64(scale).tobytes())
    tensors = {} if statistics is None else statistics.tensors()
    for name in sorted(tensors.keys() - {"means", "counts", "curve", "separation", *CONFIDENCE}):
        digest.update(name.encode())
        for piece in tensor_bytes(tensors[name]):
            digest.update(piece)
    return digest.hexdigest()
