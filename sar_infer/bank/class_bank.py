"""The class bank: class names and their embeddings in one safetensors file, bound to the encoder that made them.

``docs/bundle.md`` describes the file. Rows of a large one stay in the file until they are used.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import photos as photo_sets
from sar_infer.bank import record
from sar_infer.bank.calibration import BankCalibration
from sar_infer.bank.history import Step
from sar_infer.bank.info import PLAIN, ClassInfo
from sar_infer.bank.photos import Photos, PhotoSet
from sar_infer.bank.search import Lookup
from sar_infer.bank.undo import Stack
from sar_infer.errors import BankError
from sar_infer.storage.named_tensors import FileKind, Stored, read_only
from sar_infer.storage.packed_names import PackedNames, Places
from sar_infer.storage.tensor_file import Joined, parts_of

MAPPED_BYTES = 64 << 20
"""Size above which ``load`` maps embeddings and does not read them."""
_KIND = FileKind(
    format="sar-bank",
    noun="bank",
    version=2,
    tensors={"embeddings": "F32"},
    error=BankError,
    remedy="embed its added classes anew: sar-bank add NEW.safetensors --from FILE",
    writer="sar-bank",
    metadata=("provenance",),
    optional={**record.TENSORS, **photo_sets.TENSORS},
    sealed=photo_sets.SEALED,
)
_LATEST = "3"
"""Version of a file with photos, a calibration, or steps that are new to older readers; and its oldest reader."""
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class ClassBank:
    """Class names with their embeddings; it is checked when built, so that every bank that exists is sound.

    The one exception is a large file: ``load`` leaves its names and rows unchecked until ``verified`` is called. Many
    photos stay unchecked until they are used or ``verify`` reads them; a seal for each class binds them to the file.

    An edit of a large bank leaves its rows in pieces, so that it need not copy gigabytes; ``saved`` writes them as they
    are, and ``embeddings`` joins them when it is used.

    Attributes:
        names: C different, non-empty class names; equal to the tuple of them.
        embeddings: (C, D) float32, rows of length 1, read-only.
        encoder_digest: ``Manifest.encoder_digest`` of the bundle whose name encoder made the rows.
        provenance: Free JSON content: where the names come from.
        info: What is known of classes beside name and row, for those classes of which anything is.
        history: The steps by which the bank was changed, the oldest first.
        stack: Rows that the history needs to undo steps; None is an empty stack.
        photos: The photos of classes, for those classes that have any.
        photo_stack: Photos that the history needs to undo steps, the latest step's at the end.
        calibration: From ``sar-bank calibrate``; it may be that of an earlier state, for which it says that it holds.
        file: The content of the file that it was loaded from. For as long as names and embeddings are the same
            objects, its digest holds for them, and if it was not checked whole, neither is the bank.

    Raises:
        BankError: any of this does not hold.
    """

    names: Sequence[str]
    embeddings: Floats
    encoder_digest: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, ClassInfo] = field(default_factory=dict)
    history: tuple[Step, ...] = ()
    stack: Stack | None = None
    photos: Photos = field(default_factory=dict)
    photo_stack: tuple[PhotoSet, ...] = ()
    calibration: BankCalibration | None = None
    file: Stored | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        rows: Floats | Joined = self.embeddings
        if rows.dtype != np.float32 or len(rows.shape) != 2 or len(rows) != len(self.names):
            raise BankError(f"expected float32 ({len(self.names)}, D) embeddings, got {rows.dtype} {rows.shape}")
        try:
            object.__setattr__(self, "names", PackedNames.of(self.names))
        except UnicodeEncodeError as error:
            raise BankError(f"a class name is not text: {error}") from None
        if isinstance(rows, Joined):
            if len(rows.parts) > 1 and rows.nbytes > MAPPED_BYTES:
                object.__setattr__(self, "_pieces", rows)
                object.__delattr__(self, "embeddings")
            else:
                object.__setattr__(self, "embeddings", read_only(rows.whole()))
        elif rows.flags.writeable:
            object.__setattr__(self, "embeddings", read_only(rows))
        record.check_stack(self.history, self.retired, len(self.photo_stack), rows.shape[1])
        if self._as_stored is None or self._as_stored.checked:
            self.check()

    def check(self) -> None:
        """Check every name and row; only the names take memory.

        Raises:
            BankError: something does not hold; the first finding is named.
        """
        _KIND.check_names(self.names)
        rows = self.rows
        squares = [np.einsum("ij,ij->i", part, part) for part in parts_of(rows)]
        lengths = np.sqrt(np.concatenate(squares))  # as norm, without a copy of all rows
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
        if wrong.size:
            row = int(wrong[0])
            raise BankError(f"embedding of {self.names[row]!r} has length {lengths[row]:.4g}, expected 1")
        known = self.index.for_many(len(self.info))
        stray = next((name for name in self.info if name not in known), None)
        if stray is not None:
            raise BankError(f"info of class {stray!r:.80}, which the bank does not have")
        if any(item.aliases for item in self.info.values()):
            _ = self.lookup  # it checks them
        for name, photos in self.photos.items():
            if name not in self.index:
                raise BankError(f"photos of class {name!r:.80}, which the bank does not have")
            if photos.rows.shape[1] != rows.shape[1]:
                raise BankError(f"photos of {name!r:.80} have rows of {photos.rows.shape[1]}, expected {rows.shape[1]}")
            if len(photos.rows) > photo_sets.MOST_ROWS:
                raise BankError(
                    f"photos of {name!r:.80}: {len(photos.rows)} rows, at most {photo_sets.MOST_ROWS} are kept"
                )
            if photos.stated is None:  # those of a file are checked when they are used
                photos.check()

    def verified(self) -> ClassBank:
        """Return this bank after checking every byte that ``load`` left unread; every edit calls it first.

        Raises:
            BankError: the file was damaged or changed.
        """
        _ = self._sound
        return self

    def __getattr__(self, name: str) -> Any:
        """Join the pieces of a large bank that was just edited; any other attribute is there."""
        pieces = vars(self).get("_pieces")
        if name != "embeddings" or pieces is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        object.__setattr__(self, "embeddings", read_only(pieces.whole()))
        return self.embeddings

    @property
    def rows(self) -> Floats | Joined:
        """Return the embeddings, or the pieces that they are still in."""
        found: Floats | Joined = vars(self)["embeddings" if "embeddings" in vars(self) else "_pieces"]
        return found

    def rows_at(self, places: Indices) -> Floats:
        """Return the embeddings of some classes, copied."""
        rows = self.rows
        return rows.take(places) if isinstance(rows, Joined) else rows[places]

    @property
    def retired(self) -> Stack:
        """Return the stack, empty if there is none."""
        return Stack.empty(self.rows.shape[1]) if self.stack is None else self.stack

    @property
    def own(self) -> int:
        """Return how many classes are the bundle's own: neither added nor embedded anew at run time."""
        return len(self.names) - sum(item.added is not None for item in self.info.values())

    def phrases(self, name: str) -> tuple[str, ...]:
        """Return the texts that were embedded for a class, by its exact name; by default the name itself."""
        return self.info.get(name, PLAIN).phrases or (name,)

    @property
    def index(self) -> Places:
        """Return the row of each name."""
        return PackedNames.of(self.names).places

    @functools.cached_property
    def lookup(self) -> Lookup:
        """Return rows by any spelling of a name or alias."""
        return Lookup(self.names, self.info)

    @functools.cached_property
    def background(self) -> npt.NDArray[np.bool_] | None:
        """Return flags (C,) of background classes; None if there are none."""
        rows = [self.index[name] for name, item in self.info.items() if item.background]
        if not rows:
            return None
        result = np.zeros(len(self.names), dtype=np.bool_)
        result[rows] = True
        return result

    @functools.cached_property
    def thresholds(self) -> Floats | None:
        """Return the least score (C,) of each class, NaN for one that has none; None if no class has one."""
        known = {self.index[name]: item.threshold for name, item in self.info.items() if item.threshold is not None}
        if not known:
            return None
        result = np.full(len(self.names), np.nan, dtype=np.float32)
        result[list(known)] = list(known.values())
        return result

    @functools.cached_property
    def photographed(self) -> npt.NDArray[np.bool_] | None:
        """Return flags (C,) of classes that have photos here, or answer by photos alone; None if there are none."""
        if not self.photos:
            return None
        result = np.zeros(len(self.names), dtype=np.bool_)
        result[[self.index[name] for name in self.photos]] = True
        return result

    @functools.cached_property
    def content_digest(self) -> str:
        """Return SHA-256 (hex) over the bytes of names, offsets, embeddings and seals of photos, little-endian.

        Of a large file it is the digest that the file states, until ``verified`` has compared it with the content.
        """
        stored = self._as_stored
        return self._digest() if stored is None else stored.metadata["content_digest"]

    def save(self, path: Path) -> None:
        """Write the file so that a reader sees the old content or the new, never a part.

        Raises:
            BankError: phrases, aliases and history exceed a file's header; the old file is still there.
            OSError: the file cannot be written; the old one is still there.
        """
        metadata = record.metadata(self)
        places = self.index.for_many(len(self.photos))
        photos = photo_sets.to_tensors(self.photos, self.photo_stack, places, self.rows.shape[1])
        reader = 2 if self.info or len(self.retired) else 1
        if (
            self.calibration is not None
            or photos
            or any(step.undo is not None and (step.undo.photos or step.undo.lost) for step in self.history)
        ):
            metadata["schema_version"], reader = _LATEST, int(_LATEST)
        tensors = {"embeddings": self.rows, **record.tensors(self.retired), **photos}
        _KIND.save(path, self.names, tensors, self.encoder_digest, metadata, self.content_digest, reader)

    def saved(self, path: Path) -> ClassBank:
        """Save as ``save`` does, and return the same bank; the rows of a large one now are those of the file.

        They are not read again: they are what has just been written, and nobody else may have the file's lock.

        Raises:
            BankError: as ``save``.
            OSError: as ``save``.
        """
        self.save(path)
        if self.rows.nbytes <= MAPPED_BYTES:
            return self
        try:
            bank = self._open(path, self.encoder_digest, whole=False, names=PackedNames.of(self.names))
        except BankError:  # such as no file descriptor; then it stays in memory
            return self
        vars(bank)["_sound"] = None
        return bank

    @classmethod
    def load(cls, path: Path, encoder_digest: str | None = None) -> ClassBank:
        """Read and check a bank file; one with more than ``MAPPED_BYTES`` of embeddings is mapped.

        Of a mapped file only the frame is checked: header, sizes, offsets, UTF-8, class info and history. Our own
        writers replace files and never shorten them, so that a mapped file stays as it is.

        Args:
            path: The file.
            encoder_digest: The encoder that it must belong to; None accepts any.

        Raises:
            SchemaError: it was written for a newer reader.
            BankError: it is missing, damaged, no bank, or of another encoder.
        """
        return cls._open(path, encoder_digest, whole=False)

    @classmethod
    def verify(cls, path: Path, encoder_digest: str | None = None) -> ClassBank:
        """Load a file as ``load`` does, and check every byte of a large one too.

        Raises:
            SchemaError: it was written for a newer reader.
            BankError: it is missing, damaged, no bank, or of another encoder.
        """
        return cls._open(path, encoder_digest, whole=True)

    @classmethod
    def _open(
        cls, path: Path, encoder_digest: str | None, *, whole: bool, names: PackedNames | None = None
    ) -> ClassBank:
        """Read a file; ``names`` are its names, if they are known, with the places that were made for them."""
        stored = _KIND.load(path, encoder_digest, MAPPED_BYTES)
        embeddings = read_only(stored.tensors["embeddings"])
        stored = replace(stored, names=names or stored.names, tensors={**stored.tensors, "embeddings": embeddings})
        try:
            read = record.read(stored)
            photos, photo_stack = photo_sets.from_tensors(stored.tensors, stored.names, embeddings.shape[-1])
            if photos or photo_stack:
                _check_photos(stored, photos, photo_stack, whole=whole)
            bank = cls(
                names=stored.names,
                embeddings=embeddings,
                encoder_digest=stored.metadata["encoder_digest"],
                provenance=read.provenance,
                info=read.info,
                history=read.history,
                stack=read.stack,
                photos=photos,
                photo_stack=tuple(photo_stack),
                calibration=read.calibration,
                file=stored,
            )
            return bank.verified() if whole else bank
        except (BankError, ValueError, RecursionError) as error:
            raise BankError(f"{path}: {error}") from None

    @property
    def _as_stored(self) -> Stored | None:
        """Return the file, if names, embeddings and photos still are its own."""
        file = self.file
        if file is None or self.names is not file.names or self.rows is not file.tensors["embeddings"]:
            return None
        seals = file.tensors.get(photo_sets.SEALS)
        same = b"".join(one.seal for one in self.photos.values()) == (b"" if seals is None else seals.tobytes())
        return file if same else None

    @functools.cached_property
    def _sound(self) -> None:
        """Check every byte, once; errors are not cached, so that each call raises them."""
        stored = self._as_stored
        if stored is not None and not stored.checked:
            record.read(stored, whole=True)
            if self._digest() != stored.metadata["content_digest"]:
                raise BankError("content does not match its digest; the file was damaged or changed")
            self.check()

    def _digest(self) -> str:
        photos = photo_sets.index_tensors(self.photos, self.index.for_many(len(self.photos)))
        return _KIND.content_digest(self.names, {"embeddings": self.rows, **photos})


def _check_photos(stored: Stored, photos: Photos, stack: Sequence[PhotoSet], *, whole: bool) -> None:
    """Check the bytes of photos that were read, or with ``whole`` of all.

    Raises:
        BankError: they are damaged; the message says of which class.
    """
    if not whole and stored.tensors[photo_sets.ROWS].nbytes > MAPPED_BYTES:
        return
    for name, one in [*photos.items(), *(("", one) for one in stack)]:
        try:
            one.check()
        except BankError as error:
            raise BankError(f"{f'class {name!r:.80}' if name else 'a class in the history'}: {error}") from None
