"""Class statistics of a bank's own: fitted to the rows of photos that it keeps, beside what a bundle was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices, product_chunks
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.entry import Arrays
from sar_infer.classifiers.fitting import fit
from sar_infer.classifiers.gaussian import TrainedClasses, scatter_of
from sar_infer.classifiers.left_out import LeftOutResult, Rivals
from sar_infer.classifiers.statistics import Statistics
from sar_infer.classifiers.trained_statistics import LEAST_PHOTOS, MIN_CLASSES, TrainedStatistics
from sar_infer.errors import InputError

_MOST_NAMED = 4096
"""Classes known by name alone that compete, at most."""
_CELLS = 2**20


@dataclass(frozen=True, eq=False)
class BankFitting:
    """Statistics fitted to photos that a bank keeps.

    Attributes:
        statistics: Without means: those of classes come from their photos, and of trained ones from the bundle.
        choice: How their numbers were chosen, and what may be expected.
        classes: Names of the classes that they were fitted on.
        photos: Number of photos.
        trained: Number of trained classes of the bundle that were pooled with them.
    """

    statistics: Statistics
    choice: LeftOutResult
    classes: tuple[str, ...]
    photos: int
    trained: int

    @property
    def tensors(self) -> Arrays:
        """Return what a bank keeps."""
        return self.statistics.tensors()


def fit_bank(
    bank: ClassBank,
    base: ClassBank,
    trained: TrainedStatistics | None,
    scale: float,
    photos: Mapping[str, PhotoSet],
    rows: Mapping[str, Floats],
    *,
    only: bool = False,
) -> BankFitting:
    """Fit statistics to photos of classes, in numpy.

    Classes with two photos or more are left out in turn. All other classes of the bank compete in every ranking: by
    name, or with the mean of the photos that the bundle was trained on, whose covariance is pooled with theirs.

    Args:
        bank: The bank.
        base: The bundle's bank.
        trained: The bundle's statistics.
        scale: The logit scale.
        photos: Photos by class name, the bank's or others.
        rows: (D,) unit text row of each of these names.
        only: No other class competes, and nothing is pooled.

    Raises:
        InputError: There are fewer than four classes with two photos.
    """
    names = [name for name, one in photos.items() if len(one.rows) >= LEAST_PHOTOS]
    if len(names) < MIN_CLASSES:
        raise InputError(
            f"statistics need {MIN_CLASSES} classes with {LEAST_PHOTOS} photos or more whose rows are kept, "
            f"got {len(names)}; add photos with sar-bank add FILE --photos FOLDER"
        )
    features = np.concatenate([photos[name].rows for name in names]).astype(np.float64)
    labels = np.repeat(np.arange(len(names)), [len(photos[name].rows) for name in names])
    texts = np.array([rows[name] for name in names], np.float64)
    meaningless = np.array([photos[name].photos_only for name in names])
    if meaningless.any():  # ranked with the mean text row
        texts[meaningless] = texts[~meaningless].mean(axis=0) if not meaningless.all() else 0.0
    rivals = Rivals() if only else _rivals(bank, base, trained, names, texts)
    fitting = fit(features, labels, texts, scale, rivals=rivals)
    model = fitting.statistics
    bare = dataclasses.replace(model, means=np.zeros((0, len(model.centre)), np.float32), counts=np.zeros(0, np.int64))
    pooled = 0 if rivals.trained is None else len(rivals.trained.counts)
    return BankFitting(bare, fitting.choice, tuple(names), len(labels), pooled)


def _rivals(
    bank: ClassBank,
    base: ClassBank,
    trained: TrainedStatistics | None,
    names: list[str],
    texts: npt.NDArray[np.float64],
) -> Rivals:
    """Return the bank's other classes: trained ones, and those nearest to some text rows (C, D) of all the others."""
    used = {column for name in names if (column := bank.lookup.get(name)) is not None}
    classes = None
    if trained is not None:
        model = trained.statistics
        positions, numbers = trained.positions_in(base, bank)
        left = np.array([position not in used for position in positions.tolist()], np.bool_)
        left &= model.counts[numbers] > 0
        positions, numbers = positions[left], numbers[left]
        used |= {*positions.tolist()}
        scatter = scatter_of(model.precision.astype(np.float64), int(model.counts.sum()))
        if len(numbers):
            rows = bank.embeddings[positions].astype(np.float64)
            classes = TrainedClasses(rows, model.means[numbers].astype(np.float64), model.counts[numbers], scatter)
    columns = _nearest(bank, texts, used)
    return Rivals(bank.embeddings[columns].astype(np.float64) if len(columns) else None, classes)


def _nearest(bank: ClassBank, texts: npt.NDArray[np.float64], used: set[int]) -> Indices:
    """Return the columns of the bank, but for some, whose rows lie nearest to some text rows; 4,096 at most."""
    nearness = np.empty(len(bank.names), np.float32)
    for start, products in product_chunks([bank.embeddings], texts.astype(np.float32), _CELLS):
        nearness[start : start + products.shape[1]] = products.max(axis=0)
    nearness[sorted(used)] = -np.inf
    count = min(_MOST_NAMED, len(nearness) - len(used))
    order: Indices = np.sort(np.argpartition(-nearness, count - 1)[:count]) if count > 0 else np.zeros(0, np.intp)
    return order
