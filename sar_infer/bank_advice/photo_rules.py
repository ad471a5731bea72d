"""Rules on photos: counted twice, far from the others, not won by their class, or of classes that will be confused.

Distance and confusion use the model of the bundle's class statistics, or its defaults: all classes scatter alike, so
that Mahalanobis distances under its precision matrix P can be compared between classes, and the error between two is
known in advance (`sar_infer.classifiers.statistics`). It is an expectation, not a measurement.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices, at_even_steps
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.entry import Doubles
from sar_infer.bank_advice.finding import Finding
from sar_infer.bundle.bundle import Bundle
from sar_infer.classifiers.statistics import Statistics, class_means, composed, confusion, mahalanobis

FAR = 0.35
"""How much further than is usual, at least, a photo must lie from its others to be called far: among garments 0.5 % of
photos in the right folder do, and 9 of 10 that show no garment."""
_SPREADS = 2.5
"""The same in standard deviations of the usual distances; this counts where features have few dimensions."""
CONFUSED = 0.05
"""Expected share of photos taken for the other class from which two classes are named."""
_CLASSES, _PHOTOS = 16, 8
"""Classes, and photos of each, that say which distance is usual."""
_NEAREST = 8
MISSED = 0.5
"""Share of a class's new photos that other classes win from which the class is named."""
_MOST_CLASSES = 16_384
"""Classes of a bank up to which new photos are ranked among them all."""
Value = TypeVar("Value", bound=np.generic)


def photo_findings(
    bank: ClassBank, bundle: Bundle, before: ClassBank | None = None, files: Mapping[bytes, str] | None = None
) -> list[Finding]:
    """Return findings about the new photos of a bank, and about the classes that got them.

    Args:
        bank: The bank with its photos.
        bundle: Its bundle.
        before: The bank as it was, whose photos are not looked at again; None looks at all.
        files: Where photos came from, by their digest.
    """
    fresh = _fresh(bank, before)
    if not fresh:
        return []
    look = _Look(bank, bundle, fresh, files or {})
    return [*look.shared(), *look.far(), *look.missed(), *look.confused()]


def _fresh(bank: ClassBank, before: ClassBank | None) -> dict[str, list[int]]:
    """Return the row numbers, by class, of the photos that the earlier bank did not count."""
    fresh_rows: dict[str, list[int]] = {}
    for name, photos in bank.photos.items():
        was = None if before is None else before.photos.get(name)
        counted_digests = frozenset() if was is None else was.digest_set
        fresh_rows[name] = [number for number, digest in enumerate(photos.recent) if digest not in counted_digests]
    return {name: rows for name, rows in fresh_rows.items() if rows}


_default = functools.lru_cache(Statistics.default)


class _Look:
    """The fresh photos of a bank beside all classes that photos are known of, in training or since.

    Args:
        bank: The bank.
        bundle: Its bundle.
        fresh: Row numbers of fresh photos, by class.
        files: Where photos came from, by their digest.

    Attributes:
        rows: (K,) rows in the bank of the classes with photos.
        positions: Their positions among the K, by name.
        photo_means: (K, D) mean photo of each.
        counts: (K,) numbers of photos.
        photos_only: (K,) True for classes whose names mean nothing.
        means: (K, D) class means, in which the name counts too.
    """

    def __init__(
        self, bank: ClassBank, bundle: Bundle, fresh: Mapping[str, Sequence[int]], files: Mapping[bytes, str]
    ) -> None:
        self.bank, self.fresh, self.files = bank, fresh, files
        trained, self.scale = bundle.statistics, bundle.manifest.logit_scale
        self.model = model = _default(bank.dim, scale=self.scale) if trained is None else trained.statistics
        names = [name for name, photos in bank.photos.items() if len(photos)]
        rows = np.array([bank.positions[bank.find(name)] for name in names], np.intp)
        sets = [bank.photos[name] for name in names]
        counts = np.array([len(photos) for photos in sets], np.int64)
        sums = np.array([photos.total for photos in sets], np.float64).reshape(len(sets), -1)
        photos_only = np.array([photos.photos_only for photos in sets], np.bool_)
        if trained is not None:
            theirs, numbers = trained.positions_in(bundle.bank, bank)
            has_photos = model.counts[numbers] > 0
            theirs, numbers = theirs[has_photos], numbers[has_photos]
            both, where = np.unique(np.concatenate([rows, theirs]), return_inverse=True)
            more = model.means[numbers].astype(np.float64) * model.counts[numbers, np.newaxis]
            sums = _added(len(both), where, np.concatenate([sums.reshape(-1, len(model.centre)), more]))
            photos_only = _added(len(both), where[: len(rows)], photos_only)
            counts = _added(len(both), where, np.concatenate([counts, model.counts[numbers]]))
            rows = both
        self.rows, self.counts, self.photos_only = rows, counts, photos_only
        self.photo_means = sums.reshape(len(rows), -1) / counts[:, np.newaxis]
        self.means = class_means(model, bank.embeddings[rows], self.photo_means, counts, photos_only)
        self.positions = {bank.names[row]: position for position, row in enumerate(rows.tolist())}

    def shared(self) -> Iterator[Finding]:
        """Yield a finding for each fresh photo that another class counts too."""
        owners: dict[bytes, list[str]] = {}
        for name, photos in self.bank.photos.items():
            for digest in photos.digests:
                owners.setdefault(digest, []).append(name)
        for name, rows in self.fresh.items():
            photos = self.bank.photos[name]
            recent = [*photos.recent]
            for row in rows:
                for other in owners[recent[row]]:
                    if other != name:
                        message = f"{self._called(photos, row)} is counted for {other!r} too; leave it to one of them"
                        yield Finding("shared-photo", "warning", name, message, other)

    def far(self) -> Iterator[Finding]:
        """Yield a finding for each fresh photo that lies far from the others of its class."""
        photos_by_name = self.bank.photos
        apart = [self._apart(name, photos_by_name[name].rows) for name in self.fresh]
        others = [name for name in photos_by_name if name not in self.fresh and len(photos_by_name[name].rows) > 1]
        sampled = [others[number] for number in at_even_steps(len(others), _CLASSES).tolist()]
        apart += [self._apart(name, photos_by_name[name].rows[-_PHOTOS:]) for name in sampled]
        all_distances = mahalanobis(self.model, np.concatenate(apart).astype(np.float32))
        ends = np.cumsum([len(photos_by_name[name].rows) for name in self.fresh])
        distances = dict(zip(self.fresh, np.split(all_distances, ends), strict=False))
        all_distances = all_distances[all_distances > 0] if (all_distances > 0).any() else np.array([np.inf])
        median = float(np.median(all_distances))
        # the standard deviation of a Gaussian, estimated robustly
        spread = 1.4826 * float(np.median(np.abs(all_distances - median))) if math.isfinite(median) else 0.0
        limit = median + max(FAR * median, _SPREADS * spread)
        for name, rows in self.fresh.items():
            for row, distance in zip(rows, distances[name][rows].tolist(), strict=True):
                if distance > limit:
                    message = (
                        f"{self._called(photos_by_name[name], row)} lies {distance / median:.1f} times as far from the "
                        "other photos of its class as is usual; look at it"
                    )
                    yield Finding("far-photo", "warning", name, message)

    def missed(self) -> Iterator[Finding]:
        """Yield a finding for each class that does not win half of the photos it has just got.

        Rivals are the classes whose names, or whose photos, are nearest. Banks of more than 16,384 classes are left
        out: the look would take longer than the change.
        """
        bank, model = self.bank, self.model
        if len(bank.names) > _MOST_CLASSES:
            return
        position_of = {row: position for position, row in enumerate(self.rows.tolist())}
        for name, rows in self.fresh.items():
            photos = bank.photos[name].rows[rows]
            alike = np.argsort(-(photos @ bank.embeddings.T), axis=1)[:, :_NEAREST].ravel()
            column = bank.positions[bank.find(name)]
            rivals = np.setdiff1d(np.concatenate([alike, self.rows[self._nearest(self.positions[name])]]), [column])
            candidates = np.concatenate([[column], rivals]).astype(np.intp)
            text = bank.embeddings[candidates]
            pairs = [(number, position_of[row]) for number, row in enumerate(candidates.tolist()) if row in position_of]
            with_photos, where = (np.array(side, np.intp) for side in zip(*pairs, strict=True))
            means, counts = text.astype(np.float64), np.zeros(len(candidates), np.int64)
            photos_only = np.zeros(len(candidates), np.bool_)
            means[with_photos] = self.photo_means[where]
            counts[with_photos] = self.counts[where]
            photos_only[with_photos] = self.photos_only[where]
            weights, bias = composed(model, self.scale, text, means, counts, photos_only)
            winners = ((photos - model.centre) @ weights.T + bias).argmax(axis=1)
            lost = winners[winners > 0].tolist()
            if not lost or len(lost) < MISSED * len(rows):
                continue
            ((winner, often),) = Counter(lost).most_common(1)
            other = bank.names[int(candidates[winner])]
            way = "" if bank.photos[name].photos_only else ", or a name that the encoder knows"
            share = f"{often} of its {len(rows)} new photos" if len(rows) > 1 else "its new photo"
            message = f"{other!r} still wins {share}; give it more photos{way}"
            yield Finding("missed", "warning", name, message, other)

    def confused(self) -> Iterator[Finding]:
        """Yield a finding for each fresh class that will be taken for another, with the likeliest one."""
        if len(self.rows) < 2:
            return
        pairs = set[frozenset[int]]()
        for position in (self.positions[name] for name in self.fresh):
            rivals = self._nearest(position)
            shares = confusion(self.model, self.means[[position]], self.means[rivals])[0]
            best = int(np.argmax(shares))
            pair = frozenset((position, int(rivals[best])))
            if shares[best] < CONFUSED or pair in pairs:
                continue
            pairs.add(pair)
            name, other = (self.bank.names[int(self.rows[one])] for one in (position, int(rivals[best])))
            message = (
                f"will be confused with {other!r} in about {100 * shares[best]:.0f} % of the photos of either; "
                "add photos that show the difference, or make them one class"
            )
            yield Finding("confused", "warning", name, message, other)

    def _apart(self, name: str, rows: Floats) -> Doubles:
        """Return the differences (N, D) of a class's photos from the mean of its others, as if those were many."""
        position = self.positions[name]
        count = int(self.counts[position])
        if count < 2:
            return np.zeros(rows.shape)
        others = (count * self.photo_means[position] - rows) / (count - 1)
        result: Doubles = (rows - others) * math.sqrt(1 - 1 / count)
        return result

    def _called(self, photos: PhotoSet, row: int) -> str:
        """Return how to call a photo: by its file, or by its number among those whose rows are kept."""
        file = self.files.get([*photos.recent][row])
        return f"photo {row + 1} of {len(photos.rows)}, as added," if file is None else f"photo {file!r:.200}"

    @functools.cached_property
    def _under_precision(self) -> tuple[Floats, Floats, Floats]:
        """Return class means from the centre (K, D), these under the precision matrix P, and their products (K,)."""
        apart = (self.means - self.model.centre).astype(np.float32)
        under = apart @ self.model.precision
        return apart, under, np.einsum("kd,kd->k", under, apart)

    def _nearest(self, position: int) -> Indices:
        """Return the positions of the classes nearest to one under P."""
        apart, under, squares = self._under_precision
        distances = squares - 2 * (apart @ under[position])  # up to what is the same for all
        distances[position] = np.inf
        return np.argsort(distances)[: min(_NEAREST, len(distances) - 1)]


def _added(count: int, positions: Indices, values: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """Return the sums of values by position, an array of length ``count``; 0 where there are none."""
    result = np.zeros((count, *values.shape[1:]), values.dtype)
    np.add.at(result, positions, values)
    return result
