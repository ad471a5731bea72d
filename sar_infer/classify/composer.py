"""The weights of classes: one product and a bias make scores of features, whatever is known of the classes.

Without photos and without a fitted model, classes are ranked by the text embeddings as they are. Otherwise the class
model turns names and photos into weights; weights of classes without photos are computed once for a bundle's bank.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.class_model.adapt import Classes
from sar_infer.class_model.model import USUAL, ClassModel, Doubles, Flags, linear
from sar_infer.class_model.trained import TrainedClasses
from sar_infer.classify.fitting import fitted_model
from sar_infer.errors import BankError

T = TypeVar("T")
Pieces = tuple[tuple[Floats, float], ...]
_Names = tuple[Floats, Floats, float]
_ALIKE = 0.3
"""Where photos of only one class are known: the share of their mean that other images have too. Chosen on the
choosing deal by ``experiments/class_model/tune.py``; 0.2 to 0.4 are level."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The photos of a class: their sum (D,) float64, their number, and False if its name means nothing."""

    total: Doubles
    number: float
    named: bool = True

    @classmethod
    def of(cls, photos: PhotoSet) -> Evidence:
        """Return what photos say."""
        return cls(photos.total, len(photos), not photos.photos_only)

    @classmethod
    def summed(cls, *several: Iterable[tuple[int, Evidence]]) -> dict[int, Evidence]:
        """Return the sum of what is said of each position."""
        result: dict[int, Evidence] = {}
        for position, more in itertools.chain(*several):
            had = result.get(position)
            both = None if had is None else (had.total + more.total, had.number + more.number, had.named and more.named)
            result[position] = more if both is None else cls(*both)
        return result

    @classmethod
    def stacked(cls, items: Iterable[Evidence | None], dim: int) -> tuple[Doubles, Doubles, Flags]:
        """Return sums (N, D), numbers (N,) and flags of named classes (N,); None is a class without photos."""
        every = [cls(np.zeros(dim), 0.0) if item is None else item for item in items]
        totals = np.array([item.total for item in every]).reshape(-1, dim)
        return totals, np.array([float(i.number) for i in every]), np.array([i.named for i in every], np.bool_)


@dataclass(frozen=True, eq=False)
class Unknown:
    """The score of *unknown*, ``<x, weights> + bias - gain |x axes|²`` of a unit image.

    Attributes:
        weights: (D,) float32.
        bias: A number.
        axes: (D, R) float16.
        gain: 0 if the class model does not use the distance of *unknown*.
    """

    weights: Floats
    bias: float
    axes: npt.NDArray[np.float16]
    gain: float

    def scores(self, rows: Floats) -> Floats:
        """Return the scores (N,) of unit rows (N, D)."""
        result: Floats = rows @ self.weights + np.float32(self.bias)
        if self.gain:
            result -= np.float32(self.gain) * ((rows @ self.axes.astype(np.float32)) ** 2).sum(axis=1)
        return result


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores of C classes, linear in an image's feature, and that of *unknown*.

    Attributes:
        pieces: Weights (·, D) that follow each other, (C, D) together, and what each product is multiplied by.
        bias: (C,) is added; None is nothing.
        unknown: The score of *unknown*.
    """

    pieces: Pieces
    bias: Floats | None
    unknown: Unknown


class Composer:
    """Gives the classes of calls their weights; those of a bank are computed once. Safe to share between threads.

    A bank that was fitted has a class model of its own, which takes the place of the bundle's; trained classes keep
    the means of their photos.

    Args:
        trained: The bundle's class model and trained classes.
        base: The bundle's bank.
        scale: The logit scale.
    """

    def __init__(self, trained: TrainedClasses | None, base: ClassBank, scale: float) -> None:
        self._trained, self._base, self._scale = trained, base, scale
        self._values: weakref.WeakKeyDictionary[ClassBank, dict[str, tuple[str, Any]]] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()

    def _once(self, bank: ClassBank, what: str, make: Callable[[ClassBank], T], version: str = "") -> T:
        """Return what a function makes of a bank, or made of it before; of several versions the latest is stored."""
        with self._lock:
            values = self._values.setdefault(bank, {})
            if what not in values or values[what][0] != version:
                values[what] = version, make(bank)
            return cast("T", values[what][1])

    def fitted(self, bank: ClassBank) -> ClassModel | None:
        """Return the class model that was fitted for a bank: its own, else the bundle's; None if there is none.

        Closed forms of its own follow the photos that were added, moved or removed since.

        Raises:
            BankError: That of the bank is damaged, or of another encoder.
        """
        if bank.fitted is None:
            return None if self._trained is None else self._trained.model
        model = self._once(bank, "model", lambda bank: fitted_model(bank, self._base, self._trained))
        if len(model.centre) != bank.dim:
            raise BankError(f"class model of {len(model.centre)} numbers, expected {bank.dim}")
        return model

    def labelled(self, bank: ClassBank) -> dict[int, Evidence]:
        """Return what labelled photos say of a bank's classes, those of training too, by position."""
        photos = ((bank.positions[k], Evidence.of(one.photos)) for k, one in bank.special.items() if one.photos)
        if self._trained is None:
            return Evidence.summed(photos)
        means, counts = self._trained.means.astype(np.float64), self._trained.counts.tolist()
        pairs = zip(*map(np.ndarray.tolist, self._trained.positions_in(self._base, bank)), strict=True)
        trained = ((position, Evidence(means[n] * counts[n], counts[n])) for position, n in pairs)
        return Evidence.summed(trained, photos)

    def evidence(self, bank: ClassBank) -> Mapping[int, Evidence]:
        """Return the same with what photos without labels taught."""
        return self._once(bank, "evidence", self._evidence)

    def _evidence(self, bank: ClassBank) -> Mapping[int, Evidence]:
        by_key = {} if bank.learned is None else bank.learned.by_key
        learned = ((bank.positions[k], Evidence(row.astype(np.float64), count)) for k, (row, count) in by_key.items())
        return Evidence.summed(self.labelled(bank).items(), learned)

    def classes(self, bank: ClassBank) -> Classes:
        """Return a bank's classes as names and labelled photos know them."""
        rows, labelled = bank.embeddings, self.labelled(bank)
        means, counts, named = np.zeros(rows.shape, np.float32), np.zeros(len(rows)), np.ones(len(rows), np.bool_)
        totals, counts[[*labelled]], named[[*labelled]] = Evidence.stacked(labelled.values(), bank.dim)
        means[[*labelled]] = totals / np.maximum(1.0, counts[[*labelled]])[:, None]
        return Classes(rows, means, counts, named)

    def of_bank(self, bank: ClassBank) -> tuple[Linear, ClassModel]:
        """Return the weights of a bank's classes, and its class model."""
        return self._once(bank, "linear", self._of_bank)

    def _of_bank(self, bank: ClassBank) -> tuple[Linear, ClassModel]:
        evidence = self.evidence(bank)
        model = self._model(bank, evidence)
        if not evidence and not model.slope:
            return _moved(bank, model, _text(model, bank.embeddings), None), model
        own, photos = np.flatnonzero(bank.base_positions < 0), np.array(sorted(evidence), np.intp)
        at, (names, biases, factor) = np.union1d(own, photos), self._of_names(bank, model)
        weights, bias, _ = _named(model, bank.rows(at))
        special, more = _weights(model, bank.rows(photos), [evidence[column] for column in photos.tolist()])
        places = np.searchsorted(at, photos)
        weights[places], bias[places] = special[:-1] / np.float32(factor), more[:-1]
        pieces = ((bank.over_base(names, at, weights), factor),)
        return _moved(bank, model, pieces, bank.over_base(biases, at, bias)), model

    def of_call(
        self,
        bank: ClassBank,
        stay: Indices,
        rows: Floats,
        theirs: Indices,
        photos: Sequence[Evidence | None],
    ) -> tuple[Linear, ClassModel, Mapping[int, Evidence]]:
        """Return weights, class model and evidence of the classes of a call.

        Args:
            bank: The call's bank.
            stay: Positions of its classes that come first.
            rows: (G, D) text embeddings of the classes that were given with the call, which follow.
            theirs: Their positions in the bank, where they are the bank's, which keep its photos; else -1.
            photos: Further photos of theirs.
        """
        counted = self.evidence(bank)
        if len(stay) == len(bank.names) and not len(rows):
            return *self.of_bank(bank), counted
        columns = enumerate([*stay.tolist(), *theirs.tolist()] if counted else [])
        of_bank_classes = ((column, counted[position]) for column, position in columns if position in counted)
        further = ((column, item) for column, item in enumerate(photos, len(stay)) if item is not None)
        evidence = Evidence.summed(of_bank_classes, further)
        bias = np.zeros(len(stay), np.float32)
        if counted or self.fitted(bank) is not None:
            of_bank, model = self.of_bank(bank)
            pieces = tuple((rows_at(weights, stay), factor) for weights, factor in of_bank.pieces if len(stay))
            bias = bias if of_bank.bias is None else of_bank.bias[stay]
        else:
            model = self._model(bank, evidence, rows)
            pieces = _text(model, rows_at(bank.embeddings, stay)) if len(stay) else ()
        if not model.slope and all(column < len(stay) for column in evidence):
            of_call = _moved(bank, model, _text(model, rows), None)
        else:
            weights, biases = _weights(model, rows, [evidence.get(len(stay) + column) for column in range(len(rows))])
            of_call = _moved(bank, model, ((weights[:-1], 1.0),), biases[:-1])
        after = np.zeros(len(rows), np.float32) if of_call.bias is None else of_call.bias
        return Linear((*pieces, *of_call.pieces), np.concatenate([bias, after]), of_call.unknown), model, evidence

    def _model(self, bank: ClassBank, evidence: Mapping[int, Evidence], rows: Floats | None = None) -> ClassModel:
        """Return the model that ranks a bank's classes: the fitted or the usual one, calibrated if the bank is.

        A bank's own threshold of *unknown* replaces the model's.
        """
        model = self.fitted(bank)
        if model is None:
            first = bank if bank.base is None else bank.base.bank
            if len(first.names):
                model = self._once(first, "usual", self._usual)
            else:
                model = self._usual(first, np.zeros((1, bank.dim), np.float32) if rows is None else rows)
            if evidence:
                centre = _centre(evidence)
                centre = model.centre if centre is None else centre.astype(np.float32)
                model = dataclasses.replace(model, centre=centre, weights=np.array(USUAL))
        calibration, threshold = bank.calibration, bank.unknown_threshold
        if calibration is not None and bank.calibration_holds and calibration.model_digest == self.digest(bank):
            model = dataclasses.replace(
                model,
                weights=model.weights / calibration.temperature,
                unknown=np.array([[0.0, calibration.unknown]]),
                sets=np.array([[0.0, *calibration.least]]),
            )
        return model if threshold is None else dataclasses.replace(model, unknown=np.array([[0.0, threshold]]))

    def _usual(self, bank: ClassBank, texts: Floats | None = None) -> ClassModel:
        """Return the model of classes for which none was fitted, around the mean of their text embeddings (C, D)."""
        model, texts = ClassModel.unfitted(bank.dim, self._scale), bank.embeddings if texts is None else texts
        return dataclasses.replace(model, text_centre=texts.mean(0), weights=model.weights / USUAL[2])

    def digest(self, bank: ClassBank) -> str:
        """Return the digest of the model that a bank's calibration is bound to."""
        model = self.fitted(bank)
        return "" if model is None else model.digest

    def _of_names(self, bank: ClassBank, model: ClassModel) -> _Names:
        """Return what `_named` returns of the classes of a bank's base, or of a bank without one."""
        first = bank if bank.base is None else bank.base.bank
        return self._once(first, "names", lambda bank: _named(model, bank.embeddings), model.digest)


def rows_at(rows: Floats, positions: Indices) -> Floats:
    """Return rows of an array (C, D) at ascending positions; all of them are not copied."""
    return rows if len(positions) == len(rows) else rows[positions]


def _named(model: ClassModel, rows: Floats) -> _Names:
    """Return weights (C, D) and bias (C,) of classes by their names only, and a factor of the weights."""
    factor = float(model.weights[2] * model.scale)
    if not model.slope and factor:  # the formula gives this, for 30 ms at 1,000 classes
        return rows, np.zeros(len(rows), np.float32), factor
    weights, bias = _weights(model, rows)
    return weights[:-1], bias[:-1], 1.0


def _weights(
    model: ClassModel, rows: Floats, items: Sequence[Evidence | None] = (), shift: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return weights (G + 1, D) and bias (G + 1,) of classes and *unknown*, less the bias that every name has."""
    means, counts, named = np.broadcast_to(np.zeros(rows.shape[1]), rows.shape), np.zeros(len(rows)), None
    if any(item is not None for item in items):
        totals, counts, named = Evidence.stacked(items, rows.shape[1])
        means = totals / np.maximum(counts, 1e-12)[:, None]
    weights, bias = linear(model, rows, means, counts, named, shift)
    return weights, bias - np.float32(model.weights[1] * rows.shape[1] / model.prior / 2)


def _text(model: ClassModel, rows: Floats) -> Pieces:
    """Return the weights of classes known only by text embeddings (C, D), where no model was fitted."""
    return ((rows, float(model.weights[2] * model.scale)),)


def _moved(bank: ClassBank, model: ClassModel, pieces: Pieces, bias: Floats | None) -> Linear:
    """Return weights for images that are not yet moved by the translation that the bank has learned."""
    move = None if bank.learned is None or not bank.learned.translation.any() else bank.learned.translation
    weights, biases = _weights(model, np.empty((0, bank.dim), np.float32), shift=move)
    if move is not None:
        moved = np.concatenate([rows @ move * np.float32(factor) for rows, factor in pieces])
        bias = moved if bias is None else bias + moved
    return Linear(pieces, bias, Unknown(weights[-1], float(biases[-1]), model.axes, model.gain))


def _centre(evidence: Mapping[int, Evidence]) -> Floats | None:
    """Return the mean of the classes' mean features; None without photos."""
    means = [item.total / item.number for item in evidence.values() if item.number]
    if not means:
        return None
    centre: Floats = np.mean(means, axis=0).astype(np.float32)
    return centre if len(means) > 1 else centre * np.float32(_ALIKE)
