"""Composed logits: text, image statistics and offset of each class.

A class named only needs no weights of its own: ``Statistics`` turns the image's row into a query for its text row.
Classes with photos have a row of weights. Formulas: `sar_infer.classifiers.statistics`.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sar_infer._arrays import Floats, Indices, product_chunks, products
from sar_infer.bank import ClassBank
from sar_infer.bank.entry import Arrays
from sar_infer.classifiers.confidence import Confidence
from sar_infer.classifiers.learning import KnownClasses
from sar_infer.classifiers.statistics import (
    Counts,
    Doubles,
    Statistics,
    class_means,
    composed,
    mahalanobis,
    named_bias,
    predicted_means,
    transformed_queries,
)
from sar_infer.classifiers.trained_statistics import ClassPhotos, TrainedStatistics
from sar_infer.errors import BankError

_MOST_FITTED = 4
"""Fitted statistics of banks that are kept ready."""


@dataclass(frozen=True, eq=False)
class Terms:
    """How rows of images become logits of C classes.

    Attributes:
        statistics: The model.
        scale: The logit scale.
        bias: (C,) beside the products.
        weights: (K, D) of classes with photos.
        columns: (K,) rising, the positions of these among the C.
        means: (K, D) their means.
        counts: (K,) numbers of their photos.
        shift: How much more than was fitted is taken from classes with photos.
        translation: (D,) added to the row of each image, learned from photos without labels; None is 0.
    """

    statistics: Statistics
    scale: float
    bias: Floats
    weights: Floats
    columns: Indices
    means: Floats
    counts: Counts
    shift: float = 0.0
    translation: Floats | None = None

    @property
    def photos(self) -> Counts:
        """Return the number of photos (C,) of each class."""
        result = np.zeros(len(self.bias), np.int64)
        result[self.columns] = self.counts
        return result

    def without(self, columns: Sequence[int]) -> Terms:
        """Return the terms without some classes, rising."""
        if not len(columns):
            return self
        left = ~np.isin(self.columns, columns)
        moved = self.columns[left] - np.searchsorted(columns, self.columns[left])
        return dataclasses.replace(
            self,
            bias=np.delete(self.bias, columns),
            weights=self.weights[left],
            columns=moved,
            means=self.means[left],
            counts=self.counts[left],
        )

    def followed_by(self, other: Terms) -> Terms:
        """Return the terms of these classes and those of others after them."""
        return dataclasses.replace(
            self,
            bias=np.concatenate([self.bias, other.bias]),
            weights=np.concatenate([self.weights, other.weights]),
            columns=np.concatenate([self.columns, len(self.bias) + other.columns]),
            means=np.concatenate([self.means, other.means]),
            counts=np.concatenate([self.counts, other.counts]),
        )

    def class_means(self, columns: Indices, rows: Floats) -> tuple[Doubles, Counts]:
        """Return means (N, D) and numbers of photos (N,) of some classes.

        Args:
            columns: (N,) positions among the C.
            rows: (N, D) their text rows.
        """
        means, counts = predicted_means(self.statistics, rows), np.zeros(len(columns), np.int64)
        at = np.searchsorted(self.columns, columns)
        with_photos = np.isin(columns, self.columns)
        means[with_photos], counts[with_photos] = self.means[at[with_photos]], self.counts[at[with_photos]]
        return means, counts

    def distances(self, features: Floats, columns: Indices, rows: Floats) -> Doubles:
        """Return the squared distance (N,) under P of each image to the mean of one class.

        Args:
            features: (N, D) unit rows of images.
            columns: (N,) position of a class for each.
            rows: (N, D) text rows of these classes.
        """
        means, _ = self.class_means(columns, rows)
        return mahalanobis(self.statistics, self.translated(features) - means) ** 2

    def translated(self, features: Floats) -> Floats:
        """Return rows of images (N, D) with the translation added."""
        return features if self.translation is None else features + self.translation


def composed_logits(terms: Terms, several: Sequence[Floats], rows: Floats, cells: int) -> Iterator[tuple[int, Floats]]:
    """Yield the first column and the logits (N, B) of some classes, in order.

    Args:
        terms: The terms of the classes.
        several: Their text embeddings, which follow each other; read unless each class has weights of its own.
        rows: (N, D) unit embeddings of images.
        cells: Number of logits at a time, about.
    """
    rows = terms.translated(rows)
    centred: Floats = rows - terms.statistics.centre
    if len(terms.columns) == len(terms.bias):
        for start, weighted in product_chunks([terms.weights], centred, cells):
            yield start, weighted + terms.bias[start : start + weighted.shape[1]]
        return
    queries, constants = transformed_queries(terms.statistics, terms.scale, rows)
    for start, named in product_chunks(several, queries, cells):
        logits, stop = named, start + named.shape[1]
        logits += terms.bias[start:stop]
        logits += constants[:, np.newaxis]
        first, last = np.searchsorted(terms.columns, (start, stop)).tolist()
        if first < last:
            columns = terms.columns[first:last]
            logits[:, columns - start] = products(centred, terms.weights[first:last]) + terms.bias[columns]
        yield start, logits


@dataclass(frozen=True, eq=False)
class _Model:
    """Statistics, and the bias of the classes of banks under them, computed once.

    Attributes:
        statistics: The model.
        changes: Classes named only, or trained ones, are ranked otherwise than by text alone.
        biases: (C,) of each bank that others are based on.
    """

    statistics: Statistics
    changes: bool
    biases: weakref.WeakKeyDictionary[ClassBank, Floats] = field(default_factory=weakref.WeakKeyDictionary)

    def bias(self, bank: ClassBank) -> Floats:
        """Return the bias (C,) of a bank's classes as if all were named only."""
        base = None if bank.base is None else bank.base.bank
        if base is not None and base not in self.biases:
            self.biases[base] = named_bias(self.statistics, base.embeddings)
        values = np.empty(0, np.float32) if base is None else self.biases[base]
        bias: Floats = bank.by_origin(values, lambda own: named_bias(self.statistics, bank.rows(own)))
        return bias


class Composer:
    """Gives the classes of calls their terms; those of a bank are computed once. Safe to share between threads.

    A bank that was fitted has statistics of its own, which take the place of the bundle's; trained classes keep the
    means of their photos.

    Args:
        trained: The bundle's statistics; without them photos count by ``Statistics.default``.
        base: The bundle's bank.
        scale: The logit scale.
        offset: Added to the offset of every class with photos: above 0 favours classes without.
    """

    def __init__(self, trained: TrainedStatistics | None, base: ClassBank, scale: float, offset: float = 0.0) -> None:
        self._trained, self._base, self._scale, self._offset = trained, base, scale, offset
        statistics = Statistics.default(base.dim, scale=scale) if trained is None else trained.statistics
        self._bundled = _Model(statistics, trained is not None and (trained.active or offset != 0))
        self._fitted: list[tuple[Arrays, _Model]] = []
        self._terms: weakref.WeakKeyDictionary[ClassBank, Terms] = weakref.WeakKeyDictionary()
        self._photos: weakref.WeakKeyDictionary[ClassBank, Mapping[int, ClassPhotos]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def statistics(self, bank: ClassBank) -> Statistics:
        """Return the statistics that rank a bank's classes: its own, else the bundle's, else the default ones.

        Raises:
            BankError: Those of the bank are damaged, or of another encoder.
        """
        return self._model(bank).statistics

    def confidence(self, bank: ClassBank, terms: Terms | None) -> Confidence | None:
        """Return how far scores of a bank's classes can be trusted, from classes left out; None if that is not known.

        Args:
            bank: The call's bank.
            terms: Of the call's classes; None if text alone ranks them.
        """
        statistics = self._model(bank).statistics
        if terms is None:
            return statistics.text_confidence
        return None if terms.shift or bank.learned is not None else statistics.confidence

    def known(self, bank: ClassBank) -> KnownClasses:
        """Return all that is known of a bank's classes but for what photos without labels taught."""
        photos = self._photos_of(bank)
        rows = bank.embeddings
        means, counts = np.zeros(rows.shape, np.float32), np.zeros(len(rows))
        photos_only = np.zeros(len(rows), np.bool_)
        for column, item in photos.items():  # without labels do not count here
            means[column], counts[column], photos_only[column] = item.mean, item.count, item.photos_only
        return KnownClasses(rows, means, counts, photos_only)

    def terms(
        self,
        bank: ClassBank,
        left_out: Sequence[int] | None = (),
        rows: Floats | None = None,
        theirs: Sequence[int | None] = (),
        photos: Sequence[ClassPhotos | None] = (),
    ) -> Terms | None:
        """Return the terms of the classes of a call; None if text alone ranks them, as without statistics.

        Args:
            bank: The call's bank.
            left_out: Columns of the bank, rising, of classes that do not stand first; None are all.
            rows: (G, D) text rows of the classes that were given with the call, which follow.
            theirs: Their columns in the bank, where they are the bank's; these keep its photos.
            photos: Further photos of theirs.
        """
        model = self._model(bank)
        if not model.changes and bank.photographed is None and bank.learned is None and not any(photos):
            return None
        translation = None if bank.learned is None else bank.learned.translation
        call_terms = None
        if rows is not None:
            counted = self._photos_of(bank)
            bank_photos = [None if column is None else counted.get(column) for column in theirs]
            both = [_both(first, second) for first, second in zip(bank_photos, photos, strict=True)]
            with_photos = {position: item for position, item in enumerate(both) if item is not None}
            bias = named_bias(model.statistics, rows)
            call_terms = self._special(model.statistics, rows.__getitem__, bias, with_photos, translation)
        if left_out is None:
            return call_terms
        terms = self._of(bank, model).without(left_out)
        return terms if call_terms is None else terms.followed_by(call_terms)

    def _model(self, bank: ClassBank) -> _Model:
        if bank.fitted is None:
            return self._bundled
        with self._lock:
            for tensors, model in self._fitted:
                if tensors is bank.fitted:
                    return model
            statistics = Statistics.from_tensors(bank.fitted)
            if len(statistics.centre) != bank.dim:
                raise BankError(f"fitted statistics of {len(statistics.centre)} numbers, expected {bank.dim}")
            model = _Model(statistics, changes=True)
            self._fitted = [(bank.fitted, model), *self._fitted[: _MOST_FITTED - 1]]
            return model

    def _of(self, bank: ClassBank, model: _Model) -> Terms:
        """Return the terms of a bank's classes."""
        with self._lock:
            terms = self._terms.get(bank)
            if terms is None:
                bias = model.bias(bank)
                translation = None if bank.learned is None else bank.learned.translation
                terms = self._special(model.statistics, bank.rows, bias, self._photos_of(bank), translation)
                self._terms[bank] = terms
            return terms

    def _photos_of(self, bank: ClassBank) -> Mapping[int, ClassPhotos]:
        """Return the photos of a bank's classes by column, those without labels too."""
        photos = self._photos.get(bank)
        if photos is None:
            counted: dict[int, ClassPhotos] = {}
            if self._trained is not None:
                model = self._trained.statistics
                columns, numbers = self._trained.positions_in(self._base, bank)
                for column, number in zip(columns.tolist(), numbers.tolist(), strict=True):
                    if model.counts[number]:
                        counted[column] = ClassPhotos(model.means[number], int(model.counts[number]))
            for name, one in bank.photos.items():
                column, added = bank.positions[bank.find(name)], ClassPhotos.of(one)
                counted[column] = counted[column].joined(added) if column in counted else added
            for column, unlabelled in _unlabelled(bank).items():
                counted[column] = counted[column].joined(unlabelled) if column in counted else unlabelled
            photos = self._photos[bank] = counted
        return photos

    def _special(
        self,
        statistics: Statistics,
        rows_of: Callable[[Indices], Floats],
        bias: Floats,
        photos: Mapping[int, ClassPhotos],
        translation: Floats | None,
    ) -> Terms:
        """Return terms with weights for the classes with photos, by their columns."""
        columns = np.array(sorted(photos), dtype=np.intp)
        items = [photos[column] for column in columns.tolist()]
        rows = rows_of(columns)
        evidence = [item.evidence(translation) for item in items]
        means = np.array([mean for mean, _ in evidence], np.float32).reshape(rows.shape)
        weighted = np.array([count for _, count in evidence], np.float64)
        counts = np.array([item.count for item in items], np.int64)
        photos_only = np.array([item.photos_only for item in items], np.bool_)
        weights, special = composed(statistics, self._scale, rows, means, weighted, photos_only, self._offset)
        bias = bias.copy()
        bias[columns] = special
        joined = class_means(statistics, rows, means, weighted, photos_only).astype(np.float32)
        return Terms(statistics, self._scale, bias, weights, columns, joined, counts, self._offset, translation)


def _unlabelled(bank: ClassBank) -> dict[int, ClassPhotos]:
    """Return the photos without labels that count for a bank's classes, by column."""
    if bank.learned is None:
        return {}
    nothing = np.zeros(bank.dim, np.float32)
    return {
        bank.positions[key]: ClassPhotos(nothing, 0, unlabelled=(sums / count).astype(np.float32), weight=count)
        for key, (sums, count) in bank.learned.by_key.items()
        if count > 0
    }


def _both(one: ClassPhotos | None, two: ClassPhotos | None) -> ClassPhotos | None:
    return one.joined(two) if one is not None and two is not None else one or two
