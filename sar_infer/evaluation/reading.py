"""Reading labelled photos: their embeddings, files, copies, answers, and those that cannot be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import PhotoSet
from sar_infer.classify.decision import Decision
from sar_infer.errors import ImageError, InputError
from sar_infer.images.load import ImageSource
from sar_infer.results import ImageResult

Embedded = Iterator[tuple[str, bytes, Floats | ImageError]]
"""Name, digest of the pixels, and unit row (D,) of each photo or rows (5, D) of its crops, or its error."""
_TOGETHER = 64


@dataclass(frozen=True)
class ReadPhotos:
    """Photos that were read.

    Attributes:
        sets: The photos of each class.
        files: The file that each came from, the first of several, by its class and digest.
        repeats: Class, file, and what it doubles, of each that is not counted again.
        twice: File and class of photos that another class has too, with the first ones.
        unreadable: Class, file and reason of each that was skipped.
    """

    sets: dict[str, PhotoSet] = field(default_factory=dict)
    files: dict[tuple[str, bytes], str] = field(default_factory=dict)
    repeats: list[tuple[str, str, str]] = field(default_factory=list)
    twice: list[tuple[tuple[str, str], tuple[str, str]]] = field(default_factory=list)
    unreadable: list[tuple[str, str, str]] = field(default_factory=list)


def read_photos(
    embed: Callable[[Iterable[ImageSource]], Embedded],
    pairs: Iterable[tuple[str, ImageSource]],
    dim: int,
    *,
    photos_only: bool = False,
    skip_unreadable: bool = False,
) -> ReadPhotos:
    """Read and embed photos; one that has the same pixels as another of its class is noted and left out.

    Args:
        embed: Embeds photos one after another.
        pairs: The class of each photo, and the photo.
        dim: D, the length of an embedding.
        photos_only: The names of the classes carry no meaning.
        skip_unreadable: Note photos that cannot be read.

    Raises:
        ImageError: Photos cannot be read; the message names all of them.
        InputError: No photo of a class can be read.
    """
    result, bad, rows = ReadPhotos(), list[tuple[str, ImageError]](), dict[str, dict[bytes, Floats]]()
    named, photos = itertools.tee(pairs)
    embedded = embed(photo for _, photo in photos)
    for (name, _), (path, digest, row) in zip(named, embedded, strict=True):
        of_class = rows.setdefault(name, {})
        if isinstance(row, ImageError):
            bad.append((path, row))
            result.unreadable.append((name, path, str(row)))
        elif digest in of_class:
            result.repeats.append((name, path, f"the same pixels as {result.files[name, digest]}"))
        else:
            result.files[name, digest] = path
            if owner := next((other for other, of_other in rows.items() if digest in of_other), None):
                result.twice.append(((result.files[owner, digest], owner), (path, name)))
            of_class[digest] = row
    if bad and not skip_unreadable:
        raise unreadable(bad)
    if empty := [name for name, of_class in rows.items() if not of_class]:
        raise InputError(f"no photo of class {empty[0]!r:.80} can be read")
    for name, of_class in rows.items():
        embeddings = np.array([*of_class.values()], np.float32).reshape(-1, dim)
        result.sets[name] = PhotoSet.of(of_class, embeddings, photos_only=photos_only)
    return result


def unreadable(bad: Sequence[tuple[str, ImageError]]) -> ImageError:
    """Return the error that names all photos that cannot be read, with their reasons."""
    return ImageError("; ".join(f"{name}: {error}" for name, error in bad), bad[0][1].kind)


@dataclass(frozen=True)
class LeftOut:
    """A photo that is not evaluated.

    Attributes:
        image: Name of the photo.
        label: Its class, or its label.
        kind: ``learned``, if the bank has learned from it, ``repeated``, if another photo has the same pixels, or
            ``unreadable``.
        reason: The reason, in words.
    """

    image: str
    label: str
    kind: Literal["learned", "repeated", "unreadable"]
    reason: str


class Answered(NamedTuple):
    """Photos of the same pixels: label and name of each, the unit row (D,) or those of crops (5, D), and the result."""

    photos: list[tuple[str, str]]
    row: Floats
    result: ImageResult


def answered(
    pairs: Sequence[tuple[str, ImageSource]],
    embed: Callable[[Iterable[ImageSource]], Embedded],
    decide: Decision,
    learned: Iterable[bytes],
    watch: Callable[[int], object],
) -> tuple[list[Answered], list[LeftOut]]:
    """Return results for the photos that can be read and were not learned, and the other photos.

    Args:
        pairs: The label of each photo, and the photo.
        embed: Embeds photos one after another.
        decide: Makes results of rows.
        learned: Digests of photos that the classes have learned from.
        watch: Called with the number of photos done since the last call.
    """
    photos, rows = dict[bytes, list[tuple[str, str]]](), dict[bytes, Floats]()
    left_out, digests = list[LeftOut](), frozenset(learned)
    for (label, _), (name, digest, row) in zip(pairs, embed([source for _, source in pairs]), strict=True):
        if isinstance(row, ImageError):
            left_out.append(LeftOut(name, label, "unreadable", str(row)))
        elif digest in digests:
            left_out.append(LeftOut(name, label, "learned", "the classes have learned from it"))
        else:
            rows.setdefault(digest, row)
            photos.setdefault(digest, []).append((label, name))
        watch(1)
    same, every, results = [*photos.values()], [*rows.values()], list[ImageResult]()
    for some in (slice(start, start + _TOGETHER) for start in range(0, len(every), _TOGETHER)):
        results += decide(np.vstack(every[some]), [name for (_, name), *_ in same[some]])
    return [*map(Answered, same, every, results)], left_out
