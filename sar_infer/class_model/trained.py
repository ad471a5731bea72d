"""The class model of a bundle with the classes that it was trained on: ``class_model.safetensors``.

Tensors: those of `ClassModel.tensors`, ``means`` and ``counts`` of the trained classes, with their names as
``named_tensors`` stores them. Metadata: ``format`` = ``sar-class-model``, and the keys of every such file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank
from sar_infer.class_model.model import NUMBERS, ClassModel
from sar_infer.errors import BankError, BundleError
from sar_infer.storage.named_tensors import FileKind
from sar_infer.text.names import name_key

_FLOATS = ("precision", "centre", "text_centre", "means")
_DOUBLES = (*NUMBERS, "weights", "unknown", "sets", "expected")
_KIND = FileKind(
    format="sar-class-model",
    version=1,
    tensors=dict.fromkeys(_FLOATS, "F32") | {"counts": "I64", "axes": "F16"} | dict.fromkeys(_DOUBLES, "F64"),
)


@dataclass(frozen=True, eq=False)
class TrainedClasses:
    """A class model and the C classes whose photos it was fitted to; checked when built.

    Attributes:
        names: Their names, all different.
        model: The class model.
        means: (C, D) float32 mean features of their photos.
        counts: (C,) int64 numbers of photos, 1 or more.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose features these are.

    Raises:
        BundleError: Shapes do not fit each other, a number is out of range, or a name cannot be one.
    """

    names: Sequence[str]
    model: ClassModel
    means: Floats
    counts: npt.NDArray[np.int64]
    encoder_digest: str

    def __post_init__(self) -> None:
        expected = (len(self.names), len(self.model.centre))
        if self.means.shape != expected or self.counts.shape != expected[:1]:
            raise BundleError(f"expected means {expected} and as many counts, got {self.means.shape}")
        if not (np.linalg.norm(self.means, axis=1) < 1.001).all() or not (self.counts > 0).all():
            raise BundleError("expected means of unit features, and a photo or more of each class")

    def positions_in(self, base: ClassBank, bank: ClassBank) -> tuple[Indices, Indices]:
        """Return positions in a bank, rising, and the trained class of each, where its embedding is the bundle's.

        A class that was renamed keeps its embedding; one that was embedded anew is another class. In a bank on another
        base, a class with the same name and embedding counts.

        Args:
            base: The bundle's bank, which has every trained class.
            bank: Any bank of the same encoder.
        """
        related, pairs = bank.base is base.base, list[tuple[int, int]]()
        for number, name in enumerate(self.names):
            key, at = base.find(name), bank.lookup.name(name)
            keys = ([key] if related else []) + ([] if at is None else [bank.keys[at]])
            alike = [k for k in keys if k in bank.entries and bank.entries[k].embedded_as(base.entries[key])]
            pairs += [(bank.positions[k], number) for k in alike[:1]]
        positions, numbers = np.array(sorted(pairs), np.intp).reshape(-1, 2).T
        return positions, numbers

    def for_bank(self, base: ClassBank, bank: ClassBank) -> TrainedClasses:
        """Return those that another bank has, under its names."""
        positions, numbers = self.positions_in(base, bank)
        names = tuple(bank.names[position] for position in positions.tolist())
        means = np.ascontiguousarray(self.means[numbers])
        return dataclasses.replace(self, names=names, means=means, counts=self.counts[numbers])

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part."""
        tensors = self.model.whole().tensors() | {"means": self.means, "counts": self.counts}
        _KIND.save(path, self.names, tensors, self.encoder_digest)

    @classmethod
    def load(cls, path: Path, bank: ClassBank) -> TrainedClasses:
        """Read and check a file.

        Args:
            path: The file.
            bank: The bundle's bank.

        Raises:
            SchemaError: It was written for a newer reader.
            BundleError: It is missing, damaged, of another kind or encoder, or what it says is unsound.
        """
        names, tensors, encoder = _KIND.load(path, bank.encoder_digest)
        try:
            model = ClassModel.from_tensors(tensors)
            trained = cls(names, model, tensors["means"], tensors["counts"], encoder)
        except (BankError, BundleError) as error:
            raise BundleError(f"{path}: {error}") from None
        if missing := [name for name in trained.names if bank.lookup.name(name) is None]:
            raise BundleError(f"{path}: class {missing[0]!r} is not in the bundle's bank")
        if len({*map(name_key, trained.names)}) < len(trained.names):
            raise BundleError(f"{path}: two classes differ only in case or spaces")
        return trained
