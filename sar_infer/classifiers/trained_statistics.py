"""Class statistics with the classes that they were fitted on, as a bundle keeps them: ``statistics.safetensors``.

Tensors: those of ``Statistics.tensors``, ``offsets`` under the name ``photo_offsets``, beside the names as
``named_tensors`` stores them. Metadata: ``format`` = ``sar-statistics``, and the keys of every such file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.classifiers.statistics import CONFIDENCE, Statistics
from sar_infer.errors import BankError, BundleError, InputError
from sar_infer.storage.named_tensors import FileKind
from sar_infer.text.names import name_key

MIN_CLASSES, LEAST_PHOTOS = 4, 2
"""Classes that statistics can be fitted to, and photos with rows that each needs."""
_FLOATS = ("precision", "centre", "text_centre", "means")
_OFFSETS = "photo_offsets"
"""Of classes by their number of photos; ``offsets`` are those of the names, as in every such file."""
_DOUBLES = (_OFFSETS, "curve", "slope", "alpha", "prior", "separation")
_KIND = FileKind(
    format="sar-statistics",
    version=1,
    tensors=dict.fromkeys(_FLOATS, "F32") | {"counts": "I64"} | dict.fromkeys(_DOUBLES, "F64"),
    optional=dict.fromkeys(CONFIDENCE, "F64"),
)
_UNIT = 1.001


def enough(photos: Mapping[str, PhotoSet]) -> bool:
    """Return True if statistics can be fitted to photos of classes, by name."""
    return sum(len(one.rows) >= LEAST_PHOTOS for one in photos.values()) >= MIN_CLASSES


@dataclass(frozen=True, eq=False)
class ClassPhotos:
    """The photos of one class, as far as ranking needs them; checked when built.

    Attributes:
        mean: (D,) float32, mean of the unit rows of its photos.
        count: Number of photos; 0 only if ``photos_only`` is True, and the class waits for its first, or if photos
            without labels count for it.
        photos_only: The name means nothing (``SKU-12345``), so photos alone say what the class is.
        unlabelled: (D,) float32, mean row of photos without labels that count for it, as the stream had them.
        weight: Number of photos with labels that those count as.

    Raises:
        InputError: There is no photo, or the mean is not one of unit rows.
    """

    mean: Floats
    count: int
    photos_only: bool = False
    unlabelled: Floats | None = None
    weight: float = 0.0

    def __post_init__(self) -> None:
        if self.count < (0 if self.photos_only or self.weight else 1):
            raise InputError(f"photos of a class: expected 1 or more, got {self.count}")
        if self.mean.ndim != 1 or not float(np.linalg.norm(self.mean)) <= _UNIT:
            raise InputError("photos of a class: expected the mean (D,) of unit rows")

    @classmethod
    def of(cls, photos: PhotoSet) -> ClassPhotos:
        """Return what ranking needs of photos."""
        return cls(photos.mean.astype(np.float32), len(photos), photos.photos_only)

    def joined(self, other: ClassPhotos) -> ClassPhotos:
        """Return the photos of both; no photo may be in both. The name means nothing if either says so."""
        count = self.count + other.count
        total = self.count * self.mean.astype(np.float64) + other.count * other.mean.astype(np.float64)
        learned = self if self.weight else other
        return ClassPhotos(
            (total / max(1, count)).astype(np.float32),
            count,
            self.photos_only or other.photos_only,
            learned.unlabelled,
            learned.weight,
        )

    def evidence(self, translation: Floats | None = None) -> tuple[Floats, float]:
        """Return mean row (D,) and number of all photos, those without labels by their weight.

        Args:
            translation: (D,) what is added to the row of an image without label.
        """
        if self.unlabelled is None or not self.weight:
            return self.mean, float(self.count)
        unlabelled = self.unlabelled if translation is None else self.unlabelled + translation
        count = self.count + self.weight
        return ((self.count * self.mean + self.weight * unlabelled) / count).astype(np.float32), count


@dataclass(frozen=True, eq=False)
class TrainedStatistics:
    """Statistics and the names of the classes that they were fitted on; checked when built.

    Attributes:
        names: C different class names, in the order of ``statistics.means``.
        statistics: The model.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose image features it is about.

    Raises:
        BundleError: Names and means differ in number.
    """

    names: Sequence[str]
    statistics: Statistics
    encoder_digest: str

    def __post_init__(self) -> None:
        if len(self.names) != len(self.statistics.counts):
            raise BundleError(f"{len(self.names)} names for the means of {len(self.statistics.counts)} classes")

    @property
    def active(self) -> bool:
        """Return True if trained classes or names are ranked otherwise than by text alone."""
        model = self.statistics
        return model.alpha > 0 or any(g for _, g in model.offsets)

    def positions_in(self, base: ClassBank, bank: ClassBank) -> tuple[Indices, Indices]:
        """Return positions in a bank and the trained class of each: its row is the one that the bundle gave that class.

        A class that was renamed keeps its row and is found; one that was embedded anew is another class.

        Args:
            base: The bundle's bank, which has every trained class.
            bank: Any bank of the same encoder.
        """
        pairs = [
            (number, position)
            for number, name in enumerate(self.names)
            if (position := base.lookup.name(name)) is not None
        ]
        numbers = np.array([number for number, _ in pairs], np.intp)
        positions = bank.positions_from(base, [position for _, position in pairs])
        numbers, positions = numbers[positions >= 0], positions[positions >= 0]
        order = np.argsort(positions)
        return positions[order], numbers[order]

    def for_bank(self, base: ClassBank, bank: ClassBank) -> TrainedStatistics:
        """Return the statistics for another bank: classes that it lacks are left out, renamed ones have its names."""
        positions, numbers = self.positions_in(base, bank)
        model = self.statistics
        means, counts = np.ascontiguousarray(model.means[numbers]), model.counts[numbers]
        names = tuple(bank.names[position] for position in positions.tolist())
        return TrainedStatistics(names, dataclasses.replace(model, means=means, counts=counts), self.encoder_digest)

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part."""
        tensors = self.statistics.tensors()
        tensors[_OFFSETS] = tensors.pop("offsets")
        _KIND.save(path, self.names, tensors, self.encoder_digest)

    @classmethod
    def load(cls, path: Path, encoder_digest: str | None = None) -> TrainedStatistics:
        """Read and check a file.

        Args:
            path: The file.
            encoder_digest: The encoder that it must belong to; None accepts any.

        Raises:
            SchemaError: It has another version.
            BundleError: It is missing, damaged, of another kind or encoder, or what it says is unsound.
        """
        names, tensors, encoder = _KIND.load(path, encoder_digest)
        try:
            return cls(names, Statistics.from_tensors({**tensors, "offsets": tensors[_OFFSETS]}), encoder)
        except (BankError, BundleError) as error:
            raise BundleError(f"{path}: {error}") from None


def check_classes(path: Path, names: Sequence[str], bank: ClassBank) -> None:
    """Raise BundleError unless every class of statistics is in the bundle's bank, once.

    Args:
        path: The file, for messages.
        names: Its classes.
        bank: The bundle's bank.
    """
    bank_keys = {name_key(name) for name in bank.names}
    class_keys: set[str] = set()
    for name in names:
        key = name_key(name)
        if key not in bank_keys:
            raise BundleError(f"{path}: class {name!r} is not in the bundle's bank")
        if key in class_keys:
            raise BundleError(f"{path}: class {name!r} differs from another in case or space alone")
        class_keys.add(key)
