"""The classes that one call chooses from: those of the bank, and names given with the call."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.class_bank import Lookup
from sar_infer.bank.photos import NO_PHOTOS
from sar_infer.class_model.model import ClassModel, Doubles, apart
from sar_infer.classify.composer import Composer, Evidence, Linear, rows_at
from sar_infer.errors import InputError
from sar_infer.results import Source
from sar_infer.text.names import Phrases, name_key

Flags = npt.NDArray[np.bool_]
_EXTENDED = -1
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, eq=False)
class ClassSet:
    """The classes of a call, C columns: first those of the bank, then the G that were given.

    Attributes:
        names: Names of the classes.
        several: Embeddings (·, D) of the classes, which follow each other.
        positions: (C,) position of each class in the bank; -1 for one that the bank does not have.
        linear: What makes scores of features.
        model: The class model that it comes from, whose thresholds hold.
        evidence: What is known by photos, by column.
        background: (C,) flags of classes that take part and are never an answer; None if there are none.
        thresholds: (C,) least score of each class to be believed, NaN for a class without one; None if none has one.
        translation: (D,) is added to every image, as the bank has learned; None is nothing.
    """

    names: Sequence[str]
    several: tuple[Floats, ...]
    positions: Indices
    linear: Linear
    model: ClassModel
    evidence: Mapping[int, Evidence]
    background: Flags | None = None
    thresholds: Floats | None = None
    translation: Floats | None = None

    @functools.cached_property
    def photos(self) -> Doubles:
        """Return the number of photos (C,) that each class is known by, in addition to its name."""
        result = np.zeros(len(self.names))
        result[[*self.evidence]] = [item.number for item in self.evidence.values()]
        return result

    @functools.cached_property
    def unknown_thresholds(self) -> Doubles:
        """Return the probability of *unknown* (C,) above which an image that scores highest for a class is unknown."""
        return self.model.unknown_threshold(self.photos)

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

    def means(self, columns: Indices) -> Doubles:
        """Return the means (K, D) of some classes: what their names and photos say together."""
        centre = self.model.centre.astype(np.float64)
        totals, counts, named = Evidence.stacked(map(self.evidence.get, columns.tolist()), len(centre))
        return apart(self.model, self.rows(columns), totals - counts[:, None] * centre, counts, named)[0] + centre

    def source(self, column: int) -> Source:
        """Return where a class comes from."""
        return "extended" if self.positions[column] == _EXTENDED else "bank"

    @functools.cached_property
    def lookup(self) -> Lookup:
        """Return the columns of names, in any spelling."""
        return Lookup.of(self.names)


def are_default(bank: ClassBank, composer: Composer) -> bool:
    """Return True if the names of a bank are a default, which the names of a call replace.

    They are if an export or an import was given them for a model that was not trained on them, and nobody has changed
    them: no photo, no class model, no step of history states that they are the user's classes. The shipped bundle has
    such names.

    Args:
        bank: The classes.
        composer: That of their bundle.
    """
    exported = bank.provenance.get("origin") in ("sar-export", "sar-bundle import")
    return exported and bank.base is not None and not bank.changes and composer.fitted(bank) is None


def build_class_set(
    bank: ClassBank,
    class_phrases: Phrases,
    only: bool | None,
    embed: Callable[[Sequence[tuple[str, ...]]], Floats],
    composer: Composer,
    photos: Mapping[str, PhotoSet],
) -> ClassSet:
    """Return the bank's classes and the given ones after them; with ``only``, the given ones.

    Without a decision the given ones replace default names (`are_default`), and extend the classes of any other bank.

    A given name that the bank has, as a name or an alias, uses the embedding of the bank's class and replaces
    it, so that classes are unique; of several given names of one class, the first counts. A given name with
    phrases of its own is always encoded, and replaces the bank's class.

    Args:
        bank: Classes with known embeddings.
        class_phrases: Phrases by name, of further classes.
        only: Leave out the bank's other classes, background classes too; None does if these are a default.
        embed: Returns the embedding of each tuple of phrases.
        composer: Gives the classes their weights.
        photos: Photos of classes by name, in addition to those of the bank; a photo that the bank has counts once.

    Raises:
        InputError: No class is left.
    """
    if only is None:
        only = bool(class_phrases or photos) and are_default(bank, composer)
    spelled = {name_key(name): name for name in class_phrases}
    by_name = [(spelled.setdefault(name_key(name), name), item) for name, item in photos.items()]
    every = {**{name: (name,) for name in spelled.values()}, **class_phrases}
    columns = {name: bank.lookup.get(name) for name in every}
    phrases = _once(every, columns)
    own = (columns[name] if texts == (name,) else None for name, texts in phrases.items())
    theirs = np.array([_EXTENDED if column is None else column for column in own], np.intp)
    more = _evidence(bank, by_name, phrases, columns)
    replaced = [column for name in phrases if (column := columns[name]) is not None]
    stay = np.zeros(0, np.intp) if only else np.delete(np.arange(len(bank.names)), replaced)
    if not len(phrases) and not len(stay):
        raise InputError(
            "no class to choose from: neither bundle nor bank has one; add class names (--classes FILE), or use a bank "
            "with classes (sar-bank create FILE --classes NAMES or --photos FOLDER)"
        )
    embeddings, extended = np.empty((len(theirs), bank.dim), np.float32), theirs == _EXTENDED
    embeddings[~extended] = bank.rows(theirs[~extended].tolist())
    if extended.any():
        embeddings[extended] = embed([*itertools.compress(phrases.values(), extended)])
    return ClassSet(
        (*(bank.names[position] for position in stay.tolist()), *phrases),
        tuple(rows for rows in (rows_at(bank.embeddings, stay), embeddings) if len(rows)),
        np.concatenate([stay, theirs]),
        *composer.of_call(bank, stay, embeddings, theirs, [more.get(name) for name in phrases]),
        background=_gathered(bank.background, stay, theirs, False),
        thresholds=_gathered(bank.thresholds, stay, theirs, np.nan),
        translation=None if bank.learned is None else bank.learned.translation,
    )


def _evidence(
    bank: ClassBank, photos: Sequence[tuple[str, PhotoSet]], phrases: Phrases, columns: Mapping[str, int | None]
) -> dict[str, Evidence]:
    """Return what photos given with a call add to its classes, by name; a photo that the bank counts is left out.

    Raises:
        InputError: Embeddings have the size of another encoder.
    """
    further: dict[str, PhotoSet] = {}
    for name, item in photos:
        if item.total.shape != (bank.dim,):
            raise InputError(
                f"photos of {name!r:.80}: expected embeddings of {bank.dim}, got {item.total.shape[0]}; embed them "
                "with this bundle"
            )
        one = name if name in phrases else next(other for other in phrases if columns[other] == columns[name])
        here = columns[one] if phrases[one] == (one,) else None
        counted = NO_PHOTOS if here is None else bank.entries[bank.keys[here]].photos
        further[one] = further.get(one, NO_PHOTOS).joined(item.without(counted.digests))
    return {name: Evidence.of(item) for name, item in further.items() if item}


def _once(class_phrases: Phrases, columns: Mapping[str, int | None]) -> Phrases:
    """Return the names without repetitions: of two for one class, the one without phrases is left out.

    Args:
        class_phrases: Phrases by name.
        columns: The column of each in the bank; None if the bank does not have it.
    """
    done = {columns[name] for name, phrases in class_phrases.items() if phrases != (name,)}
    result: dict[str, tuple[str, ...]] = {}
    for name, phrases in class_phrases.items():
        if phrases != (name,) or columns[name] is None or columns[name] not in done:
            result[name] = phrases
            done.add(columns[name])
    return result


def _gathered(
    values: npt.NDArray[Value] | None, stay: Indices, theirs: Indices, default: Any
) -> npt.NDArray[Value] | None:
    """Return a value of each class of a set, from those of the bank's classes (C,).

    Args:
        values: The bank's.
        stay: Columns of the bank that stand first in the set.
        theirs: The bank's column of each class that was given; -1 for one that the bank does not have.
        default: The value of such a class.
    """
    if values is None:
        return None
    further = np.full(len(theirs), default, values.dtype)
    further[theirs >= 0] = values[theirs[theirs >= 0]]
    return np.concatenate([values[stay], further])
