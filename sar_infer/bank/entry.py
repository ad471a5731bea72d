"""The content of a bank as plain data: entries of classes, records of the bank as a whole, and photos.

An entry is all that is known of one class. Keys of entries are opaque and never used twice; names are unique by
``name_key``. Records have the keys ``@model``, ``@learned`` and ``@calibration``.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.errors import BankError
from sar_infer.storage.named_tensors import read_only
from sar_infer.storage.tensor_file import tensor_bytes

MOST_ROWS = 64
"""Photos of a class whose embeddings are stored; of older ones the digest and the sum."""
MODEL, LEARNED, CALIBRATION = "@model", "@learned", "@calibration"
UNIT_TOLERANCE = 1e-3
SAME_EMBEDDING = 1e-5
"""Largest difference between two embeddings of the same text; runs of an encoder differ by less."""
Doubles = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]


class Entry(NamedTuple):
    """A class.

    Attributes:
        name: Its name.
        embedding: (D,) float32, the unit embedding of its phrases.
        phrases: The texts that were embedded and averaged on the sphere; () is the name itself.
        aliases: Other names of the class.
        threshold: Least score, 0..1, that counts as an answer.
        background: The class takes part in the softmax, and is never an answer.
        photos_only: The name carries no meaning, so the class is known by its photos.
        added: UTC time in ISO form when the class, or its present embedding, was added; None for a bundle's own.
        photos: SHA-256 of the pixels of each photo, the oldest first. The bank's pool has the embeddings of the latest.
        photo_sum: (D,) float64, the sum of the embeddings of all photos; None without photos.
    """

    name: str
    embedding: Floats
    phrases: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    threshold: float | None = None
    background: bool = False
    photos_only: bool = False
    added: str | None = None
    photos: tuple[bytes, ...] = ()
    photo_sum: Doubles | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the texts that were embedded."""
        return self.phrases or (self.name,)


class Record(NamedTuple):
    """What belongs to the bank as a whole: JSON and arrays, which the bank stores and does not read."""

    data: Mapping[str, Any]
    arrays: Arrays = MappingProxyType({})

    @property
    def digest(self) -> bytes:
        """Return the SHA-256 of the content."""
        digest = hashlib.sha256(json.dumps(self.data, sort_keys=True).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            for chunk in tensor_bytes(array):
                digest.update(chunk)
        return digest.digest()


Puts = Mapping[str, Entry | Record | None]
"""What a step sets, by key; None removes."""


def same_embedding(one: Floats, two: Floats) -> bool:
    """Return True if two embeddings (D,) are of the same text; one with NaN equals no other."""
    return one is two or bool(np.abs(one - two).max(initial=0) <= SAME_EMBEDDING)


def same_entry(one: Entry, two: Entry) -> bool:
    """Return True if two entries agree in all but the sum of photos, which their digests decide."""
    return one is two or (
        one._replace(embedding=two.embedding, photo_sum=None) == two._replace(photo_sum=None)
        and np.array_equal(one.embedding, two.embedding)
    )


def check_entry(entry: Entry) -> Entry:
    """Return the entry if its texts, its threshold and its embedding are sound, else raise BankError."""
    for label, text in (
        ("name", entry.name),
        *(("phrase", text) for text in entry.phrases),
        *(("alias", text) for text in entry.aliases),
    ):
        if not text.strip():
            raise BankError(f"a class has an empty {label}")
        kinds = () if text.isprintable() else {unicodedata.category(character) for character in text}
        if "Cc" in kinds:
            raise BankError(f"{label} {text!r:.80} has a control character")
        if "Cs" in kinds:
            raise BankError(f"{label} {text!r:.80} is not text in UTF-8")
    if entry.threshold is not None and not 0 <= entry.threshold <= 1:
        raise BankError(f"expected a threshold of 0..1, got {entry.threshold}")
    return entry


def check_unit(embeddings: Floats, names: Iterable[str] | None = None) -> None:
    """Raise BankError unless each of the embeddings (N, D) has length 1; the first other one is named."""
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))  # as norm, without a copy
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
    if wrong.size:
        of = "a photo" if names is None else repr([*names][wrong[0]])
        raise BankError(f"embedding of {of} has length {lengths[wrong[0]]:.4g}, expected 1")


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Photos of one class, the oldest first.

    Attributes:
        digests: The SHA-256 of each photo's pixels; digests are unique.
        rows: (R, D) float32, the unit embeddings of the latest R photos.
        total: (D,) float64, the sum of the embeddings of all photos.
        photos_only: The name of the class carries no meaning.
    """

    digests: tuple[bytes, ...]
    rows: Floats
    total: Doubles
    photos_only: bool = False

    @classmethod
    def of(cls, digests: Iterable[bytes], rows: Floats, *, photos_only: bool = False) -> PhotoSet:
        """Return the photos with these digests and unit embeddings (N, D); a repeated photo counts once.

        Raises:
            BankError: An embedding does not have length 1.
        """
        digests = [bytes(digest) for digest in digests]
        if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(digests):
            raise BankError(f"expected float32 ({len(digests)}, D) embeddings of photos, got {rows.dtype} {rows.shape}")
        first = dict(zip(reversed(digests), reversed(range(len(digests))), strict=True))
        unique = sorted(first.values())
        rows = read_only(rows[unique])
        check_unit(rows)
        return cls(tuple(digests[number] for number in unique), rows, rows.sum(axis=0, dtype=np.float64), photos_only)

    def __len__(self) -> int:
        return len(self.digests)

    def __bool__(self) -> bool:
        """Return False if this is what every class without photos has."""
        return bool(self.digests) or self.photos_only

    @property
    def digest_set(self) -> frozenset[bytes]:
        """Return all digests."""
        return frozenset(self.digests)

    @property
    def recent(self) -> Mapping[bytes, Floats]:
        """Return the embeddings that are stored, by digest."""
        return dict(zip(self.digests[len(self.digests) - len(self.rows) :], self.rows, strict=True))

    @property
    def mean(self) -> Doubles:
        """Return the mean embedding (D,); zeros without photos."""
        result: Doubles = self.total / max(1, len(self))
        return result

    def without(self, digests: Iterable[bytes]) -> PhotoSet:
        """Return these photos without some, whose embeddings are stored."""
        gone, recent = {*digests}, self.recent
        total = self.total - sum((recent[digest].astype(np.float64) for digest in gone if digest in recent), 0.0)
        left = {digest: row for digest, row in recent.items() if digest not in gone}
        rows = np.array([*left.values()], np.float32).reshape(-1, len(self.total))
        return PhotoSet(tuple(d for d in self.digests if d not in gone), rows, total, self.photos_only)


class Images(NamedTuple):
    """How the encoder embeds images.

    Attributes:
        digest: Over weights, visual prompts and preprocessing.
        self_test: The unit embedding of the bundle's self-test image; empty if the bundle has none.
    """

    digest: str = ""
    self_test: tuple[float, ...] = ()

    def same(self, other: Images) -> bool:
        """Return True if photos of both can be compared: equal digests, or equal embeddings of the self-test image."""
        if self.digest == other.digest and self.digest:
            return True
        return (
            len(self.self_test) == len(other.self_test) > 0 and float(np.dot(self.self_test, other.self_test)) > 0.9999
        )


NO_IMAGES = Images()


class Parked(NamedTuple):
    """Photos that another image encoder embedded, which wait for it.

    Attributes:
        images: That encoder.
        photos: Digests and sum of each class, by the bank's keys.
        pool: Embeddings by digest.
    """

    images: Images
    photos: Mapping[str, tuple[tuple[bytes, ...], Doubles]]
    pool: Mapping[bytes, Floats]
