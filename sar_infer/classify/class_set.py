"""The classes that one call chooses from: those of the bank, and names given with the call."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.class_bank import Lookup
from sar_infer.bank.learned import BankCalibration
from sar_infer.classifiers.composition import Composer, Terms
from sar_infer.classifiers.confidence import Confidence
from sar_infer.classifiers.trained_statistics import ClassPhotos
from sar_infer.errors import InputError
from sar_infer.results import Branch, CalibratedOn, Source
from sar_infer.text.names import Phrases, name_key

Flags = npt.NDArray[np.bool_]
NO_PHOTOS: Mapping[str, ClassPhotos] = {}
_EXTENDED = -1
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, eq=False)
class ClassSet:
    """The classes of a call, C columns: first those of the bank, then the G that were given.

    Attributes:
        names: Names of the classes.
        several: Embeddings (·, D) of the classes, which follow each other.
        positions: (C,) position of each class in the bank; -1 for one that the bank does not have.
        background: (C,) flags of classes that take part and are never an answer; None if there are none.
        thresholds: (C,) least score of each class to be believed, NaN for a class without one; None if none has one.
        calibrated: (C,) flags of classes on whose photos scores were calibrated; None if there are none.
        terms: Composes logits with image statistics; None if text alone ranks.
        photographed: (C,) flags of classes that have photos beyond those of training; None if there are none.
        calibration: The bank's own, perhaps of an earlier state of it; None leaves the bundle's.
        confidence: How far scores can be trusted, from held-out classes, where no calibration holds.
    """

    names: Sequence[str]
    several: tuple[Floats, ...]
    positions: Indices
    background: Flags | None = None
    thresholds: Floats | None = None
    calibrated: Flags | None = None
    terms: Terms | None = None
    photographed: Flags | None = None
    calibration: BankCalibration | None = None
    confidence: Confidence | None = None

    @property
    def branch(self) -> Branch:
        """Return the branches that answer for these classes."""
        return "text" if self.terms is None else "text+statistics"

    def calibration_of(self, column: int) -> CalibratedOn:
        """Return how the score of a class was calibrated."""
        if self.confidence is not None:
            return "left-out"
        return "held-out" if self.calibrated is not None and bool(self.calibrated[column]) else "none"

    @property
    def photos(self) -> Indices:
        """Return the number of photos (C,) that each class is known by, beside its name."""
        return np.zeros(len(self.names), np.intp) if self.terms is None else self.terms.photos

    @property
    def shifted(self) -> bool:
        """Return True if the offset of classes with photos is not the one that was fitted."""
        return self.terms is not None and self.terms.shift != 0

    @functools.cached_property
    def embeddings(self) -> Floats:
        """Return all embeddings (C, D); copied, once, unless they are the bank's own."""
        return self.several[0] if len(self.several) == 1 else np.concatenate(self.several)

    def rows(self, columns: Sequence[int] | Indices) -> Floats:
        """Return the embeddings (…, D) of some classes, copied."""
        columns = np.asarray(columns, np.intp)
        result = np.empty((*columns.shape, self.several[0].shape[1]), np.float32)
        start = 0
        for embeddings in self.several:
            inside = (columns >= start) & (columns < start + len(embeddings))
            result[inside] = embeddings[columns[inside] - start]
            start += len(embeddings)
        return result

    def source(self, column: int) -> Source:
        """Return where a class comes from."""
        return "extended" if self.positions[column] == _EXTENDED else "bank"

    @functools.cached_property
    def lookup(self) -> Lookup:
        """Return the columns of names, in any spelling."""
        return Lookup.of(self.names)


def build_class_set(
    bank: ClassBank,
    class_phrases: Phrases,
    only: bool,
    embed: Callable[[Sequence[tuple[str, ...]]], Floats],
    composer: Composer | None = None,
    photos: Mapping[str, ClassPhotos] = NO_PHOTOS,
) -> ClassSet:
    """Return the bank's classes and the given ones after them; with ``only``, the given ones.

    A given name that the bank has, as a name or an alias, takes the row of the bank's class and stands in its place, so
    that no class stands twice; of several given names of one class, the first counts. A given name with phrases of its
    own is always encoded, and replaces the bank's class.

    Args:
        bank: Classes with known rows.
        class_phrases: Phrases by name.
        only: Leave out the bank's other classes, background classes too.
        embed: Returns the row of each tuple of phrases.
        composer: Gives the classes their terms; without one, text alone ranks them.
        photos: Photos of given classes by name, which count beside those that the bank has of them.

    Raises:
        InputError: No class is left.
    """
    if not class_phrases and not only and len(bank.names):
        return ClassSet(
            bank.names,
            bank.several,
            np.arange(len(bank.names)),
            background=bank.background,
            thresholds=bank.thresholds,
            terms=None if composer is None else composer.terms(bank),
            photographed=bank.photographed,
        )
    columns = {name: bank.lookup.get(name) for name in class_phrases}
    once = _once(class_phrases, columns)
    more = _photos(once, columns, photos)
    phrases, columns = once, {name: columns[name] for name in once}
    theirs = [column if phrases[name] == (name,) else None for name, column in columns.items()]
    extended = [texts for texts, column in zip(phrases.values(), theirs, strict=True) if column is None]
    new_rows = iter(embed(extended)) if extended else iter(())
    replaced = sorted({column for column in columns.values() if column is not None})
    if len(phrases) + (0 if only else len(bank.names) - len(replaced)) == 0:
        raise InputError("no class to choose from: give class names, or a bank that has some")
    rows = [next(new_rows) if column is None else bank.rows([column])[0] for column in theirs]
    embeddings = np.array(rows, dtype=np.float32).reshape(len(rows), bank.dim)
    given = [_EXTENDED if column is None else column for column in theirs]
    left_out = None if only else replaced
    stay = np.zeros(0, np.intp) if only else np.delete(np.arange(len(bank.names)), replaced)
    theirs_first = () if only else ((bank.embeddings[stay],) if replaced else bank.several)
    return ClassSet(
        (*(bank.names[position] for position in stay.tolist()), *phrases),
        (*theirs_first, embeddings),
        np.concatenate([stay, np.array(given, np.intp)]),
        background=_gathered(bank.background, left_out, theirs, False),
        thresholds=_gathered(bank.thresholds, left_out, theirs, np.nan),
        terms=None if composer is None else composer.terms(bank, left_out, embeddings, theirs, more),
        photographed=_photographed(bank, left_out, theirs, more),
    )


def without_counted(
    bank: ClassBank, photos: Mapping[str, ClassPhotos | PhotoSet], replaced: Collection[str] = ()
) -> dict[str, ClassPhotos]:
    """Return what ranking needs of photos by name; a photo counts once for its class, whatever its spelling.

    Photos that the bank has for that class are left out.

    Args:
        bank: The call's bank.
        photos: Photos by name.
        replaced: ``name_key`` of the classes that the call gives phrases for, so that nothing of the bank's counts.
    """
    result: dict[str, ClassPhotos] = {}
    counted: dict[str, frozenset[bytes]] = {}
    for name, item in photos.items():
        if isinstance(item, ClassPhotos):
            result[name] = item
            continue
        column = bank.lookup.get(name) if name_key(name) not in replaced else None
        spelling = name if column is None else bank.names[column]
        key = name_key(spelling)
        digests = counted.get(key, frozenset() if column is None else bank.photos_of(spelling).digest_set)
        fresh = item.without(item.digest_set & digests)
        counted[key] = digests | item.digest_set
        if fresh:
            result[name] = ClassPhotos.of(fresh)
    return result


def with_photos(
    class_phrases: Phrases, photos: Mapping[str, ClassPhotos], width: int
) -> tuple[Phrases, Mapping[str, ClassPhotos]]:
    """Return the given names and those of photos, and the photos by these names, whose spellings may differ.

    Args:
        class_phrases: Phrases by name.
        photos: Photos by name.
        width: D of the encoder.

    Raises:
        InputError: a mean is of another width.
    """
    spelled, photos_by_name = {name_key(name): name for name in class_phrases}, dict[str, ClassPhotos]()
    for name, item in photos.items():
        if item.mean.shape != (width,):
            raise InputError(
                f"photos of {name!r:.80}: expected a mean of {width} numbers, got {item.mean.shape[0]}; "
                "embed them with this bundle"
            )
        spelling = spelled.setdefault(name_key(name), name)
        photos_by_name[spelling] = photos_by_name[spelling].joined(item) if spelling in photos_by_name else item
    return {**{name: (name,) for name in spelled.values()}, **class_phrases}, photos_by_name


def with_calibration(
    classes: ClassSet, calibrated: Collection[str], bank: ClassBank, changed: Flags | None = None
) -> ClassSet:
    """Return the classes with ``calibrated`` set: those that were calibrated, with the rows that they had.

    Args:
        classes: The classes of a call, from any bank.
        calibrated: The names that were calibrated.
        bank: The bank that they were calibrated in.
        changed: (C,) flags of classes that have other photos than then; None if there are none.
    """
    if not calibrated:
        return classes
    calibrated_positions = {
        name_key(name): position for name in calibrated if (position := bank.lookup.name(name)) is not None
    }
    pairs = [
        (column, position)
        for key, position in calibrated_positions.items()
        if (column := classes.lookup.name(key)) is not None and classes.source(column) == "bank"
    ]
    flags = np.zeros(len(classes.names), dtype=np.bool_)
    if pairs:
        columns, positions = (list(side) for side in zip(*pairs, strict=True))
        flags[columns] = (classes.rows(columns) == bank.embeddings[positions]).all(axis=1)
    if changed is not None:
        flags &= ~changed
    return dataclasses.replace(classes, calibrated=flags)


def with_own_calibration(classes: ClassSet, bank: ClassBank, photos: Collection[str]) -> ClassSet:
    """Return the classes with the calibration of their bank, which holds for it.

    Args:
        classes: The classes of a call.
        bank: Their bank.
        photos: Names of classes that the call has photos of.
    """
    calibration = bank.calibration
    if calibration is None:
        return classes
    keys = {name_key(name) for name in photos}
    keys |= {name_key(bank.names[row]) for name in photos if (row := bank.lookup.get(name)) is not None}
    changed = None
    if keys:
        changed = np.zeros(len(classes.names), dtype=np.bool_)
        changed[[column for key in keys if (column := classes.lookup.name(key)) is not None]] = True
    result = with_calibration(classes, calibration.calibrated, bank, changed)
    return dataclasses.replace(result, calibration=calibration)


def _once(class_phrases: Phrases, columns: Mapping[str, int | None]) -> Phrases:
    """Return the names without repetitions: of two for one class, the one without phrases is left out.

    Args:
        class_phrases: Phrases by name.
        columns: The column of each in the bank; None if the bank does not have it.
    """
    with_phrases = {name for name, phrases in class_phrases.items() if phrases != (name,)}
    first: dict[int | None, str] = {}
    for name in sorted(class_phrases, key=lambda name: name not in with_phrases):
        first.setdefault(columns[name], name)
    return {
        name: phrases
        for name, phrases in class_phrases.items()
        if name in with_phrases or columns[name] is None or first[columns[name]] == name
    }


def _photos(
    class_phrases: Phrases, columns: Mapping[str, int | None], photos: Mapping[str, ClassPhotos]
) -> list[ClassPhotos | None]:
    """Return the photos of each class that is given, also those under another name of it.

    Args:
        class_phrases: Phrases by name, a class once.
        columns: The column of each name in the bank, also of names that went since they repeat another.
        photos: Photos by name.
    """
    result: list[ClassPhotos | None] = []
    for name in class_phrases:
        names = [name]
        if columns[name] is not None:
            names += [other for other, row in columns.items() if row == columns[name] and other not in class_phrases]
        same = [photos[other] for other in names if other in photos]
        result.append(functools.reduce(ClassPhotos.joined, same) if same else None)
    return result


def _photographed(
    bank: ClassBank,
    left_out: Sequence[int] | None,
    theirs: Sequence[int | None],
    photos: Sequence[ClassPhotos | None],
) -> Flags | None:
    """Return flags of classes that have photos, of the bank or of the call; None if there are none."""
    flags = _gathered(bank.photographed, left_out, theirs, False)
    if not any(item is not None for item in photos):
        return flags
    has_photos = np.array([item is not None for item in photos])
    if flags is None:
        before = 0 if left_out is None else len(bank.names) - len(left_out)
        return np.concatenate([np.zeros(before, dtype=np.bool_), has_photos])
    flags[len(flags) - len(has_photos) :] |= has_photos
    return flags


def _gathered(
    values: npt.NDArray[Value] | None, left_out: Sequence[int] | None, theirs: Sequence[int | None], default: Any
) -> npt.NDArray[Value] | None:
    """Return a value of each class of a set, from those of the bank's classes (C,).

    Args:
        values: The bank's.
        left_out: Columns of the bank that do not stand first in the set; None are all.
        theirs: The bank's column of each class that was given.
        default: The value of one that the bank does not have.
    """
    if values is None:
        return None
    call_values = np.array([default if column is None else values[column] for column in theirs], dtype=values.dtype)
    return call_values if left_out is None else np.concatenate([np.delete(values, left_out), call_values])
