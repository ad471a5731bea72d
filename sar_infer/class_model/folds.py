"""Folds over classes: who is held out, and the rankings that follow.

Classes are held out a third at a time, and return with 0, 1, 2, 4 or 8 photos, without their name, or not at all: then
their images are unknown ones. They are ranked among the classes that stayed, whose images were held out too, and
rivals without photos. Generalised zero-shot learning holds classes out for its *calibrated stacking* in the same way
(Chao et al., ECCV 2016, arXiv 1605.04253).

Few photos span few dimensions, in which all distances can be computed: P is a multiple of the identity outside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.class_model.model import SHRINKAGE, Doubles, Flags, Gaussian, Labels, Rivals, apart, gaussian

PHOTOS = (0, 1, 2, 4, 8)
"""Photos with which held-out classes return."""
MIN_CLASSES = 4
_PARTS, _TESTED = 3, 8
"""One class in this many is held out; of a class that stays one photo in this many is tested."""
_NAMES = len(PHOTOS) - 1.0
"""Weight of a ranking by name: that of those by 1, 2, 4 and 8 photos together."""
_NAMELESS = _TESTED
"""In one round of this many, held-out classes that return with photos have no name."""
_TASK_CELLS = 2**15
"""Numbers of a ranking, at most."""
STAYED, RETURNED, ABSENT = 0, 1, 2
IMAGE = np.dtype(
    [(name, np.intp) for name in ("row", "label", "truth", "side", "photos")]
    + [("plain", np.bool_), ("weight", np.float64), ("far", np.float64)]
)
"""A ranked image: its row and its class, that class's column, `STAYED`, `RETURNED` or `ABSENT`, the photos with which
held-out classes returned, True if all classes are present and named, its weight, and what the whole distance of
*unknown* adds to its score, times w0, without which the weights are fitted."""


@dataclass(frozen=True, eq=False)
class Task:
    """Rankings of N images among C classes and *unknown*.

    Attributes:
        terms: (3, N, C + 1) float32, the terms of the first three weights, minus their value for the truth.
        images: (N,) of `IMAGE`; ``plain`` is the same for all.
    """

    terms: npt.NDArray[np.float32]
    images: npt.NDArray[np.void]


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
class Folds:
    """All that the folds of a fit share; arguments of `fit`, in the span of its photos.

    ``spread`` is tr(S) of all photos, for folds in which one photo of each class is learned.
    """

    rows: Doubles
    texts: Doubles
    rivals: Rivals | None
    labels: Labels
    named: Flags
    scale: float
    in_halves: Sequence[Doubles]
    size: int
    spread: float
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
        rows = self.rows[np.concatenate(learned)]
        labels = np.repeat(np.arange(len(stayed)), [len(rows) for rows in learned])
        named = self.named[stayed]
        closed = gaussian(rows, labels, texts[stayed], named, rivals=self.rivals, size=self.size, spread=self.spread)
        usual = usual_distance(closed, rows, labels, self.size)
        there = rng.permutation(len(left))[len(left) // 2 :]
        fixed = self._columns(closed, learned, texts[stayed], named)
        if self.rivals is not None:
            sums = self.rivals.counts[:, None] * (self.rivals.means - closed.centre)
            fixed = _together(fixed, columns_of(closed, sums, self.rivals.counts, self.rivals.texts))
        for count in PHOTOS:
            shown = [photos[c][: min(count, max(len(photos[c]) - 1, 0))] for c in left]
            asked = [photos[c][count : count + 2 * max(PHOTOS)] for c in left]
            if 2 * sum(len(rows) > 0 for rows in asked) <= len(left):
                break
            named = np.zeros(len(left), np.bool_) if nameless and count else self.named[left]
            added = self._columns(closed, shown, texts[left], named)
            for present in (np.arange(len(left)), np.sort(there)):
                columns = _together(fixed, tuple(column[present] for column in added))
                images = _asked(tested, asked, present, len(columns[1]), rng)
                stayed, rows = images["side"] == STAYED, self.rows[images["row"]]
                shares = 1 / np.maximum(np.bincount(stayed, minlength=2), 1)
                images["weight"] = shares[stayed.astype(np.intp)] * (1.0 if count else _NAMES)
                images["label"], images["photos"] = self.labels[images["row"]], count
                images["plain"] = len(present) == len(left) and not nameless
                images["far"] = gain_of(closed, rows, usual, self.size)
                terms = terms_of(closed, rows, columns, self.scale, self.size)
                yield Task(terms - terms[:, np.arange(len(images)), images["truth"]][..., None], images)

    def _columns(self, closed: Gaussian, photos: Sequence[Labels], texts: Doubles, named: Flags) -> Columns:
        """Return `columns_of` classes with some photos."""
        sums = np.array([(self.rows[rows] - closed.centre).sum(0) for rows in photos])
        return columns_of(closed, sums, list(map(len, photos)), texts, named)


def _asked(
    tested: Sequence[Labels], asked: Sequence[Labels], present: Labels, last: int, rng: np.random.Generator
) -> npt.NDArray[np.void]:
    """Return images (N,) of classes that stayed, and of held-out classes: rows, columns and sides.

    Args:
        tested: The images of each class that stayed.
        asked: Those of each held-out class.
        present: The held-out classes that return.
        last: Number of classes that are ranked; the held-out ones come last, and *unknown* follows.
        rng: Draws some if there are many.
    """
    positions = np.full(len(asked), last)
    positions[present] = np.arange(last - len(present), last)
    sizes = [len(group) for group in (*tested, *asked)]
    images = np.zeros(sum(sizes), IMAGE)
    images["row"] = np.concatenate([*tested, *asked])
    images["truth"] = np.repeat([*range(len(tested)), *positions], sizes)
    images["side"] = np.where(images["truth"] == last, ABSENT, RETURNED)
    images["side"][: sum(map(len, tested))] = STAYED
    most, stayed = max(16, _TASK_CELLS // (last + 1)), images["side"] == STAYED
    if len(images) > most:
        images = images[np.concatenate([rng.permutation(np.flatnonzero(stayed == one))[: most // 2] for one in (1, 0)])]
    return images


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


def gain_of(closed: Gaussian, images: Doubles, usual: float, size: int) -> Doubles:
    """Return ``D (n / n̄ - 1) / 2 / (1 + k0)`` (N,) of images (N, D), n̄ from `usual_distance`."""
    apart = images - closed.centre
    distances = ((apart @ closed.precision) * apart).sum(1)
    result: Doubles = size * (distances / usual - 1) / 2 / (1 + closed.broad)
    return result


def usual_distance(closed: Gaussian, rows: Doubles, labels: Labels, size: int) -> float:
    """Return n̄, the mean of n over photos (N, D), each left out of P and the centre in turn (Sherman and Morrison)."""
    counts = np.bincount(labels)
    means = np.zeros((len(counts), rows.shape[1]))
    np.add.at(means, labels, rows)
    means /= counts[:, None]
    n, apart = counts[labels].astype(np.float64), rows - means[labels]
    free = max(closed.photos - len(counts), 1) * (closed.photos - 1 + SHRINKAGE * size)
    factor = np.where(n > 1, n / np.maximum(n - 1, 1), 0.0) * (closed.photos - 1) / free
    z = rows - closed.centre + apart / np.maximum(n - 1, 1)[:, None] / len(counts)
    image = apart @ closed.precision
    along, own = (z * image).sum(1), (apart * image).sum(1)
    distances = ((z @ closed.precision) * z).sum(1) + factor * along**2 / np.maximum(1 - factor * own, 0.05)
    return float(distances[n > 1].mean() if (n > 1).any() else distances.mean())


def merged(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks, small ones of as many classes and of one kind as one, so that a pass has few steps."""
    groups: dict[tuple[int, bool, int], list[Task]] = {}
    cells: Counter[tuple[int, bool]] = Counter()
    for task in tasks:
        key = task.terms.shape[2], bool(task.images["plain"].all())
        groups.setdefault((*key, cells[key] // _TASK_CELLS), []).append(task)
        cells[key] += task.terms[0].size
    pairs = [([one.terms for one in group], [one.images for one in group]) for group in groups.values()]
    return [Task(np.concatenate(terms, axis=1), np.concatenate(images)) for terms, images in pairs]
