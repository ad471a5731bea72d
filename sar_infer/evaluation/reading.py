"""Reading labelled photos: their embeddings, files, copies, and those that cannot be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bank import PhotoSet
from sar_infer.errors import ImageError, InputError
from sar_infer.images.load import ImageSource

Embedded = Iterator[tuple[str, bytes, Floats | ImageError]]
"""Name, digest of the pixels, and unit row (D,) of each photo, or the error that it gave."""


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
