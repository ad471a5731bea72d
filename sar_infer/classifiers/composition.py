"""Composed logits: text, image statistics and offset of each class in one product.

A class named only needs no weights of its own: ``Statistics`` turns the image's row into a query for its text row. A
small set has a row of weights for every class all the same, so that one product gives all logits; of a large one only
classes with photos have them, and text rows stay the file's. Formulas: `sar_infer.classifiers.statistics`.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank
from sar_infer.classifiers.statistics import Statistics, composed, named_bias, transformed_queries
from sar_infer.classifiers.trained_statistics import ClassPhotos, TrainedStatistics

SMALL = 16_384
"""Classes up to which every one has weights: 32 MiB at 512 numbers a row."""


@dataclass(frozen=True, eq=False)
class Terms:
    """How rows of images become logits of C classes.

    Attributes:
        statistics: The model.
        scale: The logit scale.
        bias: (C,) beside the products.
        weights: (K, D) of classes that have their own.
        columns: (K,) rising, the places of these among the C; None if all have their own.
        shift: How much more than was fitted is taken from classes with photos.
    """

    statistics: Statistics
    scale: float
    bias: Floats
    weights: Floats
    columns: Indices | None = None
    shift: float = 0.0

    def run(self, part: slice) -> Terms:
        """Return the terms of some neighbouring classes."""
        if self.columns is None:
            return dataclasses.replace(self, bias=self.bias[part], weights=self.weights[part])
        first, last = np.searchsorted(self.columns, (part.start, part.stop)).tolist()
        columns = self.columns[first:last] - part.start
        return dataclasses.replace(self, bias=self.bias[part], weights=self.weights[first:last], columns=columns)

    def dense(self, text_rows: Floats) -> Terms:
        """Return the same with weights for every class; ``text_rows`` are theirs (C, D)."""
        if self.columns is None:
            return self
        none = np.zeros(len(text_rows), dtype=np.int64)
        weights, bias = composed(self.statistics, self.scale, text_rows, text_rows, none)
        weights[self.columns], bias[self.columns] = self.weights, self.bias[self.columns]
        return dataclasses.replace(self, bias=bias, weights=weights, columns=None)


class Prepared:
    """The unit rows (N, D) of some images, ready for any number of blocks of classes."""

    def __init__(self, terms: Terms, rows: Floats) -> None:
        self._terms = terms
        self._centred: Floats = rows - terms.statistics.centre
        if terms.columns is not None:
            self._queries, constants = transformed_queries(terms.statistics, terms.scale, rows)
            self._constants = constants[:, np.newaxis]

    def logits(self, start: int, text_rows: Floats) -> Floats:
        """Return logits (N, B) of the classes from place ``start`` on, whose text rows are (B, D)."""
        terms, stop = self._terms, start + len(text_rows)
        if terms.columns is None:
            whole: Floats = self._centred @ terms.weights[start:stop].T
            whole += terms.bias[start:stop]
            return whole
        result: Floats = self._queries @ text_rows.T
        result += terms.bias[start:stop]
        result += self._constants
        first, last = np.searchsorted(terms.columns, (start, stop)).tolist()
        if first < last:
            columns = terms.columns[first:last]
            result[:, columns - start] = self._centred @ terms.weights[first:last].T + terms.bias[columns]
        return result


class Composer:
    """Gives the classes of calls their terms; those of a bank are computed once. Safe to share between threads.

    Args:
        trained: The bundle's statistics; without them photos count by ``Statistics.default``.
        own: The bundle's bank.
        scale: The logit scale.
        offset: Added to the offset of every class with photos: above 0 favours classes without.
        small: Classes of a bank up to which each has weights of its own.
    """

    def __init__(
        self,
        trained: TrainedStatistics | None,
        own: ClassBank,
        scale: float,
        offset: float = 0.0,
        small: int = SMALL,
    ) -> None:
        self._trained, self._own, self._scale, self._offset, self._small = trained, own, scale, offset, small
        model = Statistics.default(own.embeddings.shape[1], scale=scale) if trained is None else trained.statistics
        self._statistics = model
        self._changes = trained is not None and (trained.active or offset != 0)
        self._known: weakref.WeakKeyDictionary[ClassBank, Terms] = weakref.WeakKeyDictionary()
        self._photos: weakref.WeakKeyDictionary[ClassBank, Mapping[int, ClassPhotos]] = weakref.WeakKeyDictionary()
        self._named: weakref.WeakKeyDictionary[ClassBank, Floats] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def terms(
        self,
        bank: ClassBank,
        kept: Sequence[slice],
        rows: Floats | None = None,
        taken: Sequence[int | None] = (),
        photos: Sequence[ClassPhotos | None] = (),
    ) -> Terms | None:
        """Return the terms of the classes of a call; None if text alone ranks them, as without statistics.

        Args:
            bank: The call's bank.
            kept: Runs of its classes, which stand first.
            rows: (G, D) text rows of the classes that were given with the call, which follow.
            taken: Their rows in the bank, where they are the bank's; these keep its photos.
            photos: Further photos of theirs.
        """
        if not self._changes and not bank.photos and not any(photos):
            return None
        parts = [self._of(bank).run(run) for run in kept]
        if rows is not None and len(rows):
            known = self._photos_of(bank)
            trained = [None if row is None else known.get(row) for row in taken]
            seen = [_both(first, second) for first, second in zip(trained, photos, strict=True)]
            parts.append(self._explicit(rows, seen))
        return parts[0] if len(parts) == 1 else self._joined(parts)

    def _of(self, bank: ClassBank) -> Terms:
        """Return the terms of a bank's classes."""
        with self._lock:
            found = self._known.get(bank)
            if found is None:
                known = self._photos_of(bank)
                if len(bank.names) <= self._small:
                    found = self._explicit(bank.embeddings, [known.get(row) for row in range(len(bank.names))])
                else:
                    columns = np.array(sorted(known), dtype=np.intp)
                    special = self._explicit(bank.embeddings[columns], [known[row] for row in columns.tolist()])
                    bias = self._named_bias(bank).copy()
                    bias[columns] = special.bias
                    found = dataclasses.replace(special, bias=bias, columns=columns)
                self._known[bank] = found
            return found

    def _photos_of(self, bank: ClassBank) -> Mapping[int, ClassPhotos]:
        """Return the photos of a bank's classes by row."""
        found = self._photos.get(bank)
        if found is None:
            found = {}
            if self._trained is not None:
                model = self._trained.statistics
                rows, places = self._trained.found(self._own, bank)
                for row, place in zip(rows.tolist(), places.tolist(), strict=True):
                    if model.counts[place]:
                        found[row] = ClassPhotos(model.means[place], int(model.counts[place]))
            for name, kept in bank.photos.items():
                row, added = bank.index[name], ClassPhotos.of(kept)
                found[row] = found[row].joined(added) if row in found else added
            self._photos[bank] = found
        return found

    def _named_bias(self, bank: ClassBank) -> Floats:
        """Return the bias (C,) of a bank's classes as if all were named only; rows that an earlier bank had are known.

        Otherwise a class that is added to a million would take as long as the million.
        """
        rows, before = bank.embeddings, [(other.embeddings, found) for other, found in self._named.items()]
        result = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), SMALL):
            part = slice(start, start + SMALL)
            same = (found for old, found in before if len(old) > start and np.array_equal(old[part], rows[part]))
            known = next(same, None)
            result[part] = named_bias(self._statistics, rows[part]) if known is None else known[part]
        self._named[bank] = result
        return result

    def _explicit(self, rows: Floats, photos: Sequence[ClassPhotos | None]) -> Terms:
        """Return terms with weights for each of (K, D) text rows."""
        means, counts = rows.copy(), np.zeros(len(rows), dtype=np.int64)
        photos_only = np.zeros(len(rows), dtype=np.bool_)
        for place, item in enumerate(photos):
            if item is not None:
                means[place], counts[place], photos_only[place] = item.mean, item.count, item.photos_only
        weights, bias = composed(self._statistics, self._scale, rows, means, counts, photos_only, self._offset)
        return Terms(self._statistics, self._scale, bias, weights, shift=self._offset)

    def _joined(self, parts: Sequence[Terms]) -> Terms:
        """Return the terms of all parts, one after the other."""
        bias, weights = np.concatenate([part.bias for part in parts]), np.concatenate([p.weights for p in parts])
        joined = dataclasses.replace(parts[0], bias=bias, weights=weights, columns=None)
        if all(part.columns is None for part in parts):
            return joined
        places, start = [], 0
        for part in parts:
            columns = np.arange(len(part.bias), dtype=np.intp) if part.columns is None else part.columns
            places.append(columns + start)
            start += len(part.bias)
        return dataclasses.replace(joined, columns=np.concatenate(places))


def _both(first: ClassPhotos | None, second: ClassPhotos | None) -> ClassPhotos | None:
    if first is None or second is None:
        return first or second
    return first.joined(second)
