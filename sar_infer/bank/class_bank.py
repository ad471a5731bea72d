"""The class bank: entries of classes, as the steps of its log leave a base, and the arrays that rank them."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.bank.entry import CALIBRATION, LEARNED, MODEL, THRESHOLD, Arrays, Entry, Puts, Record, check_entry
from sar_infer.bank.learned import BankCalibration, Learned
from sar_infer.bank.photos import NO_IMAGES, Images, Parked, PhotoSet, check_unit
from sar_infer.bank.steps import Log, Step, merged
from sar_infer.errors import BankError, ClassNameError
from sar_infer.storage.named_tensors import read_only
from sar_infer.text.names import name_key, name_keys

Flags = npt.NDArray[np.bool_]
_MOST_COMPARED = 20_000
"""Names among which similar spellings are searched; a comparison takes some microseconds."""
_PLAIN = Entry("", np.empty(0, np.float32))[2:]


@dataclass(frozen=True, eq=False)
class Lookup:
    """Positions of classes by name and alias, without regard to case and space.

    Attributes:
        spellings: The names, by position.
        names: Positions by the ``name_key`` of names; of two that differ in case or space, the last.
        aliases: Positions by the ``name_key`` of aliases.
    """

    spellings: Sequence[str]
    names: Mapping[str, int]
    aliases: Mapping[str, int]

    @classmethod
    def of(cls, names: Sequence[str], aliases: Mapping[str, int] = MappingProxyType({})) -> Lookup:
        """Return the positions of names, with those of aliases."""
        return cls(names, dict(zip(name_keys(names), range(len(names)), strict=True)), aliases)

    def name(self, text: str) -> int | None:
        """Return the position of the class with this name."""
        return self.names.get(name_key(text))

    def alias(self, text: str) -> int | None:
        """Return the position of the class that has this alias."""
        return self.aliases.get(name_key(text))

    def get(self, text: str) -> int | None:
        """Return the position of the class with this name or alias."""
        key = name_key(text)
        return self.names.get(key, self.aliases.get(key))

    def spelling(self, text: str) -> str:
        """Return the name of the class with this name or alias; the text itself if there is none."""
        return text if (position := self.get(text)) is None else self.spellings[position]

    def find(self, text: str) -> int:
        """Return the position of the class with this name or alias.

        Raises:
            ClassNameError: There is none; the message has similar spellings.
        """
        position = self.get(text)
        if position is None:
            raise ClassNameError(self.missing(text))
        return position

    def missing(self, text: str, *, hint: bool = True) -> str:
        """Return the message that no class has this name; with ``hint``, with names that are spelled alike."""
        near = self.near(text) if hint else []
        meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"no class {text!r:.80} in the bank{meant}"

    def near(self, text: str, most: int = 3) -> list[str]:
        """Return names of classes spelled alike, the nearest first; of a large bank, those that start alike."""
        key = name_key(text)
        every = {**self.aliases, **self.names}
        keys = [other for other in every if abs(len(other) - len(key)) <= max(3, len(key) // 3)]
        if len(keys) > _MOST_COMPARED:
            keys = [other for other in keys if other[:2] == key[:2]][:_MOST_COMPARED]
        alike = difflib.get_close_matches(key, keys, n=most, cutoff=0.6)
        return list(dict.fromkeys(self.spellings[every[each]] for each in alike))


@dataclass(frozen=True, eq=False)
class Base:
    """The bank of a bundle, on which other banks store only what differs.

    Attributes:
        bank: That bank.
        digest: The checksum of its file.
        path: Where the file was when the bank on it was written.
    """

    bank: ClassBank
    digest: str
    path: str


@dataclass(frozen=True, eq=False)
class ClassBank:
    """Class names with their embeddings, all that is known of them, and what was done to them; it never changes.

    `load` opens a file, `of` makes a bank of names and embeddings; edits, such as `sar_infer.bank.add`, return a new
    bank with one more step of history.

    Attributes:
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose encoders made the embeddings.
        dim: D, the length of an embedding.
        log: What was done to the base.
        base: A bundle's bank; None if all classes are the bank's own.
        next_key: Number of the next entry's key.
        images: How the encoder embeds images.
        provenance: Free JSON content: where the names come from.
        parked: Photos that wait for the image encoders that embedded them.
        digest: Checksum of the file that the bank was read from; empty if it was made in memory.
    """

    encoder_digest: str
    dim: int
    log: Log = field(default_factory=Log)
    base: Base | None = None
    next_key: int = 0
    images: Images = NO_IMAGES
    provenance: Mapping[str, Any] = field(default_factory=dict)
    parked: tuple[Parked, ...] = ()
    digest: str = ""

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        embeddings: Floats,
        encoder_digest: str,
        *,
        phrases: Mapping[str, tuple[str, ...]] | None = None,
        images: Images = NO_IMAGES,
        provenance: Mapping[str, Any] | None = None,
    ) -> ClassBank:
        """Return a bank of names with unit embeddings (C, D) float32, without history.

        Raises:
            BankError: A name or an embedding is unsound, or two names differ only in case or space.
        """
        if embeddings.dtype != np.float32 or embeddings.ndim != 2 or len(embeddings) != len(names):
            raise BankError(f"expected float32 ({len(names)}, D) embeddings, got {embeddings.dtype} {embeddings.shape}")
        phrases = phrases or {}
        rows = read_only(embeddings)
        entries = {
            str(number): Entry(name, row, phrases.get(name, ()))
            for number, (name, row) in enumerate(zip(names, rows, strict=True))
        }
        log = Log(folded=entries)
        bank = cls(encoder_digest, embeddings.shape[1], log, None, len(names), images, provenance or {})
        vars(bank)["embeddings"] = rows
        return bank.checked()

    def checked(self) -> ClassBank:
        """Return the bank if its own entries are sound.

        Raises:
            BankError: Something is unsound; the first finding is named.
        """
        own = {key: item for key, item in self.changes.items() if isinstance(item, Entry)}
        names = [entry.name for entry in own.values()]
        plain = "".join(names).isprintable() and all(map(str.strip, names))
        for entry in own.values() if self.base is not None or not plain else self.special.values():
            check_entry(entry)
        if self.base is None:
            check_unit(self.embeddings, self.names)
        elif own:
            check_unit(np.array([entry.embedding for entry in own.values()], np.float32), names)
        lookup = self.lookup
        if len(lookup.names) != len(self.names):
            twice = next(name for position, name in enumerate(self.names) if lookup.name(name) != position)
            raise BankError(f"class name {twice!r:.80} is there twice; case and space do not count")
        if both := next((alias for alias in lookup.aliases if alias in lookup.names), None):
            raise BankError(f"alias {both!r:.80} is the name of a class")
        return self

    @classmethod
    def load(cls, path: Path, encoder_digest: str | None = None, base: ClassBank | None = None) -> ClassBank:
        """Read and check a bank file.

        Args:
            path: The file.
            encoder_digest: The encoder that it must belong to; None accepts any.
            base: The bank of its bundle; None opens the file that it names as its base.

        Raises:
            SchemaError: It was written for a newer reader.
            BaseMissingError: It stores the changes of a bundle that is not there, or not this one.
            BankError: It is missing, damaged, no bank, or of another encoder.
        """
        from sar_infer.bank.file import read

        return read(path, encoder_digest, base)

    def save(self, path: Path, *, overwrite: bool = True) -> None:
        """Write the file under its lock, so that a reader sees the old content or the new; a link is followed.

        Args:
            path: The file.
            overwrite: Replace a bank file that is there, with what others changed in it since this bank was read.

        Raises:
            BankError: A file is there, and ``overwrite`` is False.
            WriteError: Another process is changing the file.
            OSError: The file cannot be written; the old one is still there.
        """
        from sar_infer.bank.file import write
        from sar_infer.storage.files import WAIT, owned

        with owned(path, WAIT) as file:
            if not overwrite and file.exists():
                raise BankError(f"{path}: has other classes; overwrite=True replaces them, or choose another name")
            write(file, self)

    def shared(self, path: Path) -> ClassBank:
        """Return a bank without changes whose base is this one, which a bundle has at a path."""
        base = Base(self, self.digest or self.content_digest, str(path))
        return self.replaced(log=Log(), base=base, parked=())

    def settled(self) -> ClassBank:
        """Return the bank as a bundle gives it away: without history, and without the embedding of any photo.

        It ranks as before, and its calibration holds if it held before. The model and what was learned stay.
        """
        log = Log(folded={**self.entries, **self.records}).mapped(lambda _, entry: entry.bare())
        return self._calibrated(self.replaced(log=log, base=None, parked=()))

    def with_model(self, arrays: Arrays) -> ClassBank:
        """Return the bank without history, whose class model has these arrays and does not follow its photos."""
        return self._calibrated(self.replaced(log=Log(folded={**self.changes, MODEL: Record({}, dict(arrays))})))

    def _calibrated(self, bank: ClassBank) -> ClassBank:
        """Return a bank that ranks as this one, with the calibration if it holds here."""
        calibration = self.calibration
        if calibration is None or not self.calibration_holds:
            return bank
        calibration = dataclasses.replace(calibration, content_digest=bank.content_digest)
        folded = {**bank.log.folded, CALIBRATION: Record(dataclasses.asdict(calibration))}
        return bank.replaced(log=Log(folded=folded))

    def replaced(self, **fields: Any) -> ClassBank:
        """Return the bank with other fields, which no file has yet."""
        return dataclasses.replace(self, digest="", **fields)

    @functools.cached_property
    def changes(self) -> Puts:
        """Return the puts of all steps, merged."""
        return self.log.puts

    @functools.cached_property
    def _state(self) -> Puts:
        """Return the base's entries and records with the changes laid over them."""
        return self.changes if self.base is None else merged([self.base.bank._state, self.changes])

    @functools.cached_property
    def entries(self) -> Mapping[str, Entry]:
        """Return the classes by key, in order."""
        return {key: item for key, item in self._state.items() if isinstance(item, Entry)}

    @functools.cached_property
    def records(self) -> Mapping[str, Record]:
        """Return ``@model``, ``@learned``, ``@calibration`` and ``@threshold``, those that are there."""
        return {key: item for key, item in self._state.items() if isinstance(item, Record)}

    @property
    def history(self) -> tuple[Step, ...]:
        """Return the steps by which the bank was changed, the oldest first."""
        return self.log.steps

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Return the C names, in order."""
        return tuple([entry.name for entry in self.entries.values()])

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """Return the keys of the C classes, in order."""
        return tuple(self.entries)

    @functools.cached_property
    def positions(self) -> Mapping[str, int]:
        """Return positions by key."""
        return dict(zip(self.entries, range(len(self.entries)), strict=True))

    @functools.cached_property
    def base_positions(self) -> Indices:
        """Return the position in the base (C,) of each class that has its embedding unchanged; -1 of all others.

        A bank without a base is its own.
        """
        if self.base is None:
            return np.arange(len(self.entries))
        position, had = self.base.bank.positions, self.base.bank.entries
        origin = np.arange(len(position))
        touched = {key: item for key, item in self.changes.items() if key in position}
        origin[
            [position[k] for k, item in touched.items() if isinstance(item, Entry) and not item.embedded_as(had[k])]
        ] = -1
        origin = np.delete(origin, [position[key] for key, item in touched.items() if item is None])
        return np.concatenate([origin, np.full(len(self.entries) - len(origin), -1, np.intp)])

    @functools.cached_property
    def embeddings(self) -> Floats:
        """Return the embeddings (C, D) in one array, read-only; the base's array itself if nothing was changed."""
        if self.base is None:
            return read_only(self.rows(range(len(self.entries))))
        own = np.flatnonzero(self.base_positions < 0)
        return self.over_base(self.base.bank.embeddings, own, self.rows(own))

    def rows(self, positions: Iterable[int]) -> Floats:
        """Return the embeddings (N, D) of some positions, copied."""
        rows = [self.entries[self.keys[position]].embedding for position in positions]
        return np.array(rows, np.float32).reshape(-1, self.dim)

    def over_base(self, base_values: Floats, positions: Indices, values: Floats) -> Floats:
        """Return a value (C, …) of each class, read-only: the base's, and others laid over them.

        Args:
            base_values: (B, …), of the base's classes; of a bank without a base, of its own.
            positions: (N,): of all classes whose embedding is not the base's, and of any others.
            values: (N, …), of these.
        """
        if not len(positions) and len(self.base_positions) == len(base_values):
            return base_values
        if len(base_values):
            result = base_values.take(self.base_positions, axis=0, mode="clip")
        else:  # a bundle without classes
            result = np.empty((len(self.base_positions), *base_values.shape[1:]), base_values.dtype)
        result[positions] = values
        return read_only(result)

    @functools.cached_property
    def special(self) -> Mapping[str, Entry]:
        """Return the classes of which more than name and embedding is known, by key, in order."""
        keys = self.changes.keys() | ({} if self.base is None else self.base.bank.special.keys())
        return {key: entry for key, entry in self.entries.items() if key in keys and entry[2:] != _PLAIN}

    @functools.cached_property
    def lookup(self) -> Lookup:
        """Return the positions of names and aliases, in any spelling."""
        aliases = [(name_key(alias), self.positions[k]) for k, entry in self.special.items() for alias in entry.aliases]
        return Lookup.of(self.names, dict(aliases))

    def find(self, text: str) -> str:
        """Return the key of the class with this name or alias; ClassNameError if there is none."""
        return self.keys[self.lookup.find(text)]

    def entry(self, text: str) -> Entry:
        """Return the class with this name or alias; ClassNameError if there is none."""
        return self.entries[self.find(text)]

    def photos_of(self, name: str) -> PhotoSet:
        """Return the photos of the class with this name or alias."""
        return self.entry(name).photos or PhotoSet.of((), np.empty((0, self.dim), np.float32))

    @functools.cached_property
    def photos(self) -> Mapping[str, PhotoSet]:
        """Return the photos of classes by name, of those that have any, or that are known only by photos."""
        return {entry.name: entry.photos for entry in self.special.values() if entry.photos}

    @functools.cached_property
    def photos_digest(self) -> str:
        """Return SHA-256 (hex) over the classes with photos: their embeddings, and the digests of their photos."""
        digest = hashlib.sha256()
        for key, entry in self.special.items():
            if entry.photos:
                digest.update(f"{key} {entry.photos_only} {len(entry.photos)} ".encode())
                digest.update(entry.embedding.tobytes() + b"".join(entry.photos.digests))
        return digest.hexdigest()

    @functools.cached_property
    def background(self) -> Flags | None:
        """Return flags (C,) of the classes that are never an answer; None if there are none."""
        positions = [self.positions[key] for key, entry in self.special.items() if entry.background]
        return np.isin(np.arange(len(self.entries)), positions) if positions else None

    @property
    def background_names(self) -> frozenset[str]:
        """Return the names of the classes that are never an answer."""
        return frozenset(entry.name for entry in self.special.values() if entry.background)

    @property
    def can_answer(self) -> bool:
        """Return True if there is a class that can be an answer: one that is not background."""
        return len(self.entries) > len(self.background_names)

    @functools.cached_property
    def thresholds(self) -> Floats | None:
        """Return the least score (C,) of each class, NaN for one that has none; None if no class has one."""
        least = {self.positions[k]: e.threshold for k, e in self.special.items() if e.threshold is not None}
        if not least:
            return None
        result = np.full(len(self.entries), np.nan, dtype=np.float32)
        result[[*least]] = [*least.values()]
        return result

    @functools.cached_property
    def added_count(self) -> int:
        """Return how many classes, or their embeddings, were added at run time."""
        return sum(entry.added is not None for entry in self.special.values())

    @property
    def fitted(self) -> Arrays | None:
        """Return the arrays of the class model that was fitted on the bank's photos."""
        return self.records[MODEL].arrays if MODEL in self.records else None

    @functools.cached_property
    def learned(self) -> Learned | None:
        """Return what photos without labels taught."""
        record = self.records.get(LEARNED)
        if record is None:
            return None
        return Learned.of(record, self.entries, self.known_classes)

    @functools.cached_property
    def known_classes(self) -> Mapping[str, str]:
        """Return digests by key: of each embedding that was added at run time, and of the model."""
        digests = {
            key: hashlib.blake2b(entry.embedding.tobytes(), digest_size=8).hexdigest()
            for key, entry in self.special.items()
            if entry.added is not None
        }
        return digests | ({MODEL: self.records[MODEL].digest.hex()[:16]} if MODEL in self.records else {})

    @functools.cached_property
    def calibration(self) -> BankCalibration | None:
        """Return the latest calibration; it may be that of an earlier state."""
        return BankCalibration.of(self.records[CALIBRATION].data) if CALIBRATION in self.records else None

    @property
    def unknown_threshold(self) -> float | None:
        """Return the bank's own threshold of *unknown*, 0 to 1, which replaces the calibration's and the model's."""
        return float(self.records[THRESHOLD].data["unknown"]) if THRESHOLD in self.records else None

    @property
    def calibration_holds(self) -> bool | None:
        """Return True if the calibration is of the state as it is, False if it is of an earlier one; None without."""
        calibration = self.calibration
        if calibration is None:
            return None
        return {*calibration.background} == self.background_names and calibration.content_digest == self.content_digest

    @functools.cached_property
    def content_digest(self) -> str:
        """Return SHA-256 (hex) of names, embeddings, photos, model and what was learned: the base's, and what differs.

        Equal states of one base have the same. A class that was removed and added again is not the base's any more.
        Aliases, thresholds and background flags are not part of it.
        """
        had, of_base = ({}, {}) if self.base is None else (self.base.bank.entries, self.base.bank.records)

        def content(entry: Entry) -> list[Any]:
            return [entry.name, entry.photos_only, sorted(photo.hex() for photo in entry.photos.digests)]

        parts: list[list[Any]] = [[key] for key in sorted(had.keys() - self.entries.keys())]
        digest = hashlib.sha256()
        for key, entry in self.entries.items():
            base = had.get(key)
            if base is entry or (base and base.embedded_as(entry) and content(base) == content(entry)):
                continue
            parts.append([key if base else "", *content(entry)])
            digest.update(entry.embedding.tobytes())
        for key in (MODEL, LEARNED):
            if (record := self.records.get(key)) is not of_base.get(key):
                stale = key == LEARNED and self.learned is not None and self.learned.stale
                parts.append([key, stale, record and record.digest.hex()])
        if self.base is not None and not parts:
            return self.base.bank.content_digest
        digest.update(json.dumps([self.base and self.base.bank.content_digest, parts]).encode())
        return digest.hexdigest()

    @functools.cached_property
    def state_digest(self) -> str:
        """Return SHA-256 (hex) of all that an edit can change: `content_digest`, settings of classes, thresholds.

        It is the content digest if nothing else differs from the base.
        """
        had, of_base = ({}, {}) if self.base is None else (self.base.bank.special, self.base.bank.records)
        plain, parts = Entry("", np.empty(0, np.float32)), list[Any]()
        for key in sorted(self.special.keys() | (had.keys() & self.entries.keys()), key=self.positions.__getitem__):
            entry, before = self.entries[key], had.get(key, plain)
            settings = [list(entry.aliases), entry.threshold, entry.background]
            if settings != [list(before.aliases), before.threshold, before.background]:
                parts.append([entry.name, *settings])
        for key in (THRESHOLD, CALIBRATION):
            if (record := self.records.get(key)) is not of_base.get(key):
                parts.append([key, record and record.digest.hex()])
        if not parts:
            return self.content_digest
        return hashlib.sha256(json.dumps([self.content_digest, parts]).encode()).hexdigest()
