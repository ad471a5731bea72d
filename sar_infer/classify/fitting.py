"""The class model of a bank: fitted to its stored photos, with all of its other classes as rivals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sar_infer._arrays import Floats, Indices, product_chunks
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.edits import listed
from sar_infer.bank.entry import MODEL
from sar_infer.bank.photos import MOST_ROWS
from sar_infer.class_model.cross_validation import Fitted, fit, reworded
from sar_infer.class_model.folds import MIN_CLASSES
from sar_infer.class_model.model import ClassModel, Doubles, Flags, Rivals
from sar_infer.class_model.trained import TrainedClasses
from sar_infer.errors import InputError
from sar_infer.measures import wilson

LEAST_CLASSES, LEAST_PHOTOS = 2, 2
"""Classes with photos that a model can be fitted to, and photos that each has where folds can be made."""
_MOST_NAMED = 4096
"""Rivals known only by name, at most."""
_CELLS = 2**20
_MOST_PHOTOS = 2048
"""Photos of which the closed forms are made again for the next answer, at most."""
_ALIKE = 4
"""Independent photos that those of a class count as in an interval, as in prediction sets: they are alike."""
_WAYS = {0: "by name", 1: "by 1 photo", 2: "by 2 photos", 4: "by 4 photos"}


@dataclass(frozen=True, eq=False)
class BankFitting:
    """A class model that was fitted to photos of a bank.

    Attributes:
        fitted: The model, and how it was fitted.
        classes: Number of classes with photos.
        photos: Number of photos.
        trained: Number of trained classes of the bundle that were pooled with them.
    """

    fitted: Fitted
    classes: int
    photos: int
    trained: int

    @property
    def expected_accuracy(self) -> float | None:
        """Return the accuracy, 0 to 1, to expect of other photos of these classes; None if it was not measured."""
        expected = self.fitted.model.expected
        return float(expected[-1, 1]) if len(expected) else None

    def lines(self) -> Iterator[str]:
        """Yield which accuracy may be expected of the model, for people."""
        model = self.fitted.model
        if not len(model.expected):
            yield f"accuracy not measured ({self.fitted.why or 'too few photos'}): the model has its usual weights"
            return
        share, rivals = model.expected[-1, 1], int(model.rivals)
        independent = min(self.photos, _ALIKE * self.classes)
        low, high = (round(100 * end) for end in wilson(share * independent, independent))
        yield (
            f"other photos of these classes: about {share:.0%} right among {rivals + 1:,} classes "
            f"(95 % interval {low} to {high}), if these photos are a random sample; photos chosen as typical promise "
            "too much"
        )
        ways = [f"{share:.0%} {_WAYS[int(n)]}" for n, _, share in model.expected.tolist() if n in _WAYS]
        yield (
            f"classes that you add: about {', '.join(ways)} right among {2 * rivals + 1:,} classes, that is once "
            f"{rivals:,} are added to these {rivals + 1:,}"
        )


def content(fitting: BankFitting) -> dict[str, object]:
    """Return a fitting for programs; accuracies are 0 to 1."""
    model = fitting.fitted.model
    return {
        "classes": fitting.classes,
        "photos": fitting.photos,
        "pooled_classes": fitting.trained,
        "not_measured": fitting.fitted.why,
        "rivals": int(model.rivals),
        "expected": [
            {"photos": int(n), "fitted_classes": fitted, "added_classes": added}
            for n, fitted, added in model.expected.tolist()
        ],
        "unknown": [{"photos": n, "threshold": limit} for n, limit in model.unknown.tolist()],
    }


def enough(photos: Mapping[str, PhotoSet], classes: int = LEAST_CLASSES, each: int = 1) -> bool:
    """Return True if so many classes have so many photos each: by default, as a class model needs."""
    return sum(len(one.recent) >= each for one in photos.values()) >= classes


def fit_advice(before: ClassBank, after: ClassBank) -> str | None:
    """Return why a fit would help after photos were added; None if it would not.

    A fit pays for classes that have got two photos or more and had none, so that the model was fitted without them.
    """
    if after is before or not enough(after.photos, MIN_CLASSES, LEAST_PHOTOS):
        return None
    if after.fitted is None:
        return "enough photos to fit a class model"
    new = [name for name, one in after.photos.items() if len(one.rows) >= LEAST_PHOTOS and name not in before.photos]
    return f"the class model was fitted without photos of {listed(new)}; fit it again" if new else None


def fit_bank(bank: ClassBank, base: ClassBank, trained: TrainedClasses | None, scale: float) -> BankFitting:
    """Fit a class model to the photos of a bank, in numpy.

    All other classes of the bank compete in every ranking: by name, or with the mean of the photos that the bundle was
    trained on, whose covariance is pooled with theirs.

    Args:
        bank: The bank.
        base: The bundle's bank.
        trained: The bundle's class model.
        scale: The logit scale.

    Raises:
        InputError: There are fewer than two classes with photos.
    """
    sets = {bank.lookup.find(name): one for name, one in bank.photos.items() if len(one.rows)}
    if len(sets) < LEAST_CLASSES:
        raise InputError(
            f"a class model needs {LEAST_CLASSES} classes with photos whose embeddings are stored, got {len(sets)}; "
            "add photos with sar-bank add FILE --photos FOLDER"
        )
    rows, labels, texts, named = _labelled(bank, sets)
    pooled = _pooled(bank, base, trained, {*sets})
    others = _nearest(bank, texts, {*sets, *pooled.positions.tolist()})
    rivals = Rivals(
        bank.embeddings[np.concatenate([pooled.positions, others])].astype(np.float64),
        np.concatenate([pooled.means, np.zeros((len(others), bank.dim))]),
        np.concatenate([pooled.counts, np.zeros(len(others))]).astype(np.float64),
        None if trained is None or not len(pooled.positions) else trained.model,
    )
    fitted = fit(rows, labels, texts, scale, named=named, rivals=rivals if len(rivals.counts) else None)
    return BankFitting(fitted, len(sets), len(labels), len(pooled.positions))


def pinned(bank: ClassBank, base: ClassBank, trained: TrainedClasses | None) -> ClassBank:
    """Return a bank whose class model stays as it ranks now, for a bundle or one file, which do not have its photos.

    Arguments and errors are those of `fitted_model`; a bank without a fitted model is returned as it is.
    """
    return bank if bank.fitted is None else bank.with_model(fitted_model(bank, base, trained).tensors())


def fitted_model(bank: ClassBank, base: ClassBank, trained: TrainedClasses | None) -> ClassModel:
    """Return a bank's own class model with the closed forms of the photos that it has now.

    Means, covariance and what follows from them are of the photos as they are, the weights and thresholds those that
    folds found. If the embedding of a photo is only in a sum from the beginning, as in a bundle, or there are more than
    2,048 photos, of which a few change little, the model is as it was fitted.

    Args:
        bank: The bank, to which a model was fitted.
        base: The bundle's bank.
        trained: The bundle's class model.

    Raises:
        BankError: The model is damaged.
    """
    record = bank.records[MODEL]
    model = ClassModel.from_tensors(record.arrays)
    if record.data.get("photos") in (None, bank.photos_digest) or len(model.centre) != bank.dim:
        return model
    photos = {bank.lookup.find(name): one for name, one in bank.photos.items() if len(one)}
    stored = all(len(one.recent) == min(len(one), MOST_ROWS) for one in photos.values())
    if not stored or len(photos) < LEAST_CLASSES or sum(len(one.recent) for one in photos.values()) > _MOST_PHOTOS:
        return model
    rows, labels, texts, named = _labelled(bank, photos)
    pooled = _pooled(bank, base, trained, {*photos})
    rivals = None
    if trained is not None and len(pooled.positions):
        others = bank.embeddings[pooled.positions].astype(np.float64)
        rivals = Rivals(others, pooled.means, pooled.counts, trained.model)
    return reworded(model, rows, labels, texts, named=named, rivals=rivals)


def _labelled(bank: ClassBank, sets: Mapping[int, PhotoSet]) -> tuple[Floats, Indices, Floats, Flags]:
    """Return features (N, D) and labels (N,) of photos by position, and text rows (C, D) and flags (C,) of names."""
    labels = np.repeat(np.arange(len(sets)), [len(one.rows) for one in sets.values()])
    named = np.array([not one.photos_only for one in sets.values()])
    return np.concatenate([one.rows for one in sets.values()]), labels, bank.rows(sets), named


class _Pooled(NamedTuple):
    """Trained classes of a bundle without photos in the bank: positions, mean features (R, D) and photo counts (R,)."""

    positions: Indices
    means: Doubles
    counts: Doubles


def _pooled(bank: ClassBank, base: ClassBank, trained: TrainedClasses | None, used: set[int]) -> _Pooled:
    if trained is None:
        return _Pooled(np.zeros(0, np.intp), np.zeros((0, bank.dim)), np.zeros(0))
    positions, numbers = trained.positions_in(base, bank)
    left = np.array([position not in used for position in positions.tolist()], np.bool_)
    chosen = numbers[left]
    return _Pooled(positions[left], trained.means[chosen].astype(np.float64), trained.counts[chosen].astype(np.float64))


def _nearest(bank: ClassBank, texts: Floats, used: set[int]) -> Indices:
    """Return the positions of the classes nearest to some others, without excluded ones; 4,096 at most."""
    nearness = np.empty(len(bank.names), np.float32)
    for start, products in product_chunks([bank.embeddings], texts, _CELLS):
        nearness[start : start + products.shape[1]] = products.max(axis=0)
    nearness[sorted(used)] = -np.inf
    count = min(_MOST_NAMED, len(nearness) - len(used))
    order: Indices = np.sort(np.argpartition(-nearness, count - 1)[:count]) if count > 0 else np.zeros(0, np.intp)
    return order
