"""The content of a bank as plain data: entries of classes, and records of the bank as a whole.

An entry is all that is known of one class. Keys of entries are opaque and never used twice; names are unique by
``name_key``. Records have the keys ``@model``, ``@learned``, ``@calibration`` and ``@threshold``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank.photos import NO_PHOTOS, PhotoSet
from sar_infer.errors import BankError
from sar_infer.storage.tensor_file import tensor_bytes

MODEL, LEARNED, CALIBRATION, THRESHOLD = "@model", "@learned", "@calibration", "@threshold"
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
        added: UTC time in ISO form when the class, or its present embedding, was added; None for a bundle's own.
        photos: Its photos; their ``photos_only`` is True if the name carries no meaning.
    """

    name: str
    embedding: Floats
    phrases: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    threshold: float | None = None
    background: bool = False
    added: str | None = None
    photos: PhotoSet = NO_PHOTOS

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the texts that were embedded."""
        return self.phrases or (self.name,)

    @property
    def photos_only(self) -> bool:
        """Return True if the name carries no meaning, so the class is known by its photos."""
        return self.photos.photos_only

    def embedded_as(self, other: Entry) -> bool:
        """Return True if both have one embedding."""
        return self.embedding is other.embedding or np.array_equal(self.embedding, other.embedding)

    def bare(self) -> Entry:
        """Return the class without the embedding of any photo; their sum stays."""
        return self._replace(photos=dataclasses.replace(self.photos, recent={})) if self.photos.recent else self

    def same(self, other: Entry) -> bool:
        """Return True if both agree."""
        plain = self[:1] + self[2:-1] == other[:1] + other[2:-1]
        return self is other or (plain and self.photos.same(other.photos) and self.embedded_as(other))


class Record(NamedTuple):
    """An entry of the bank as a whole: JSON and arrays, which the bank stores and does not read."""

    data: Mapping[str, Any]
    arrays: Arrays = MappingProxyType({})

    @property
    def digest(self) -> bytes:
        """Return the SHA-256 of the content."""
        return digest_of(json.dumps(self.data, sort_keys=True), self.arrays).digest()


def digest_of(text: str, arrays: Arrays) -> hashlib._Hash:
    """Return SHA-256 over a text, and names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.newbyteorder("<").str, array.shape]).encode())
        digest.update(tensor_bytes(array))
    return digest


Puts = Mapping[str, Entry | Record | None]
"""The entries that a step sets, by key; None removes."""


def check_entry(entry: Entry) -> Entry:
    """Return the entry if its texts, its threshold and its embedding are sound, else raise BankError."""
    texts = {"name": (entry.name,), "phrase": entry.phrases, "alias": entry.aliases}
    for label, text in ((label, text) for label, several in texts.items() for text in several):
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
