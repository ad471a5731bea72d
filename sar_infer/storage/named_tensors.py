"""Safetensors files of class names with tensors, bound to an encoder; banks and heads are two kinds of them.

Every kind has the tensors ``names`` U8, all names in UTF-8 end to end, and ``offsets`` I64 (C+1), where each name
begins and the last one ends. Every kind has the metadata ``format``, ``schema_version``, ``min_reader``,
``encoder_digest`` and ``content_digest``.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sar_infer.errors import SarInferError, SchemaError
from sar_infer.storage import READER_VERSION
from sar_infer.storage.files import write_atomically
from sar_infer.storage.tensor_file import TensorFile, Tensors, file_pieces, tensor_bytes

Value = TypeVar("Value", bound=np.generic)
_CONTINUES = 0x80
"""The upper two bits of a UTF-8 byte that does not begin a character."""
_METADATA = ("schema_version", "min_reader", "encoder_digest", "content_digest")


@dataclass(frozen=True)
class Stored:
    """The content of a file.

    Attributes:
        names: C class names.
        tensors: The tensors of its kind, without names and offsets.
        metadata: All metadata.
        checked: True if content and digest agree; False if a tensor was mapped, so that its bytes were not read.
    """

    names: tuple[str, ...]
    tensors: Tensors
    metadata: Mapping[str, str]
    checked: bool = True


@dataclass(frozen=True)
class FileKind:
    """A kind of file, such as a bank.

    Attributes:
        format: The value of ``format`` in its metadata.
        noun: Its name in messages.
        version: Its ``schema_version``.
        tensors: Type of each tensor beside the names; the content digest takes them in this order.
        error: Raised if a file or its content is unsound.
        remedy: Advice in the message about a file of another encoder.
        metadata: Further keys that the metadata must have.
        optional: Type of each further tensor that a file may have.
        sealed: Those of them that the content digest takes too, after the others, if the file has them.
        writer: The command that writes such files.
        reader: The newest version of such files that this code reads.
    """

    format: str
    noun: str
    version: int
    tensors: Mapping[str, str]
    error: type[SarInferError]
    remedy: str
    metadata: tuple[str, ...] = ()
    optional: Mapping[str, str] = field(default_factory=dict)
    sealed: tuple[str, ...] = ()
    writer: str = "sar-export"
    reader: int = READER_VERSION

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ``error`` if a name is empty, has control characters, or is listed more than once."""
        for number, name in enumerate(names):
            if not name.strip():
                raise self.error(f"class {number} has an empty name")
            if not name.isprintable() and any(unicodedata.category(character) == "Cc" for character in name):
                raise self.error(f"class name {name!r} has a control character")
        if len(set(names)) < len(names):
            repeated = next(name for name, count in Counter(names).items() if count > 1)
            raise self.error(f"class name {repeated!r} stands more than once")

    def content_digest(self, names: Sequence[str], tensors: Tensors) -> str:
        """Return the SHA-256 (hex) of names, offsets, the kind's tensors and sealed ones, in this order."""
        return digest_of(*packed(names), *self._covered(tensors))

    def save(
        self,
        path: Path,
        names: Sequence[str],
        tensors: Tensors,
        encoder_digest: str,
        metadata: Mapping[str, str] | None = None,
        digest: str | None = None,
        min_reader: int | None = None,
    ) -> None:
        """Write a file atomically and durably; see ``files.write_atomically``.

        Args:
            path: The file.
            names: C class names.
            tensors: The tensors of the kind, and any optional ones.
            encoder_digest: The encoder that the tensors belong to.
            metadata: The kind's own metadata.
            digest: The ``content_digest``, if it is known already.
            min_reader: The oldest reader that understands this content; None is ``version``.

        Raises:
            SarInferError: There is more metadata than the format takes; it is the kind's ``error``. An old file is
                still there.
            OSError: The file cannot be written; an old one is still there.
        """
        header = {
            "format": self.format,
            "schema_version": str(self.version),
            "min_reader": str(min_reader or self.version),
            "encoder_digest": encoder_digest,
            "content_digest": digest or self.content_digest(names, tensors),
            **(metadata or {}),
        }
        data, offsets = packed(names)
        try:
            write_atomically(path, file_pieces({**tensors, "names": data, "offsets": offsets}, header))
        except ValueError as error:
            raise self.error(f"{path}: cannot be written ({error})") from None

    def load(self, path: Path, encoder_digest: str | None, map_above: int | None = None) -> Stored:
        """Read and check a file.

        Args:
            path: The file.
            encoder_digest: The encoder that the file must belong to; None accepts any.
            map_above: Tensors with more bytes are mapped, not read, and the digest is not checked; None reads all.

        Raises:
            SchemaError: The file was written for a newer reader.
            SarInferError: The file is missing, damaged, of another kind, or of another encoder; it is the kind's
                ``error``.
        """
        metadata, tensors, mapped = self._read(path, map_above)
        self.check_encoder(path, metadata["encoder_digest"], encoder_digest)
        data, offsets = tensors.pop("names"), tensors.pop("offsets")
        digest = metadata["content_digest"]
        checked = mapped.isdisjoint(self.tensors)
        if checked and digest_of(data, offsets, *self._covered(tensors)) != digest:
            raise self.error(f"{path}: content does not match its digest; the file was damaged or changed")
        try:
            return Stored(unpacked(data, offsets), tensors, metadata, checked)
        except ValueError as error:
            raise self.error(f"{path}: {error}") from None

    def encoder_of(self, path: Path) -> str:
        """Return the digest of the encoder that a file belongs to; raises as ``opened``."""
        with self.opened(path) as file:
            return file.metadata["encoder_digest"]

    def check_encoder(self, path: Path, encoder_digest: str, expected: str | None) -> None:
        """Raise the kind's ``error`` if a file does not belong to the encoder that is expected; None accepts any."""
        if expected is not None and encoder_digest != expected:
            raise self.error(
                f"{path}: belongs to another encoder; {self.remedy} "
                f"(expected {expected[:8]}, the {self.noun} has {encoder_digest[:8]})"
            )

    def _covered(self, tensors: Tensors) -> Iterator[npt.NDArray[Any]]:
        """Yield the tensors that the content digest takes after the names, or their parts."""
        for name in (*self.tensors, *self.sealed):
            if name in tensors or name in self.tensors:
                yield tensors[name]

    def _read(
        self, path: Path, map_above: int | None
    ) -> tuple[Mapping[str, str], dict[str, npt.NDArray[Any]], set[str]]:
        """Return metadata, tensors, and the names of mapped tensors."""
        expected = {**self.tensors, "names": "U8", "offsets": "I64"}
        with self.opened(path) as file:
            kinds = {name: entry.kind for name, entry in file.entries.items()}
            if {**expected, **{name: self.optional[name] for name in kinds.keys() & self.optional}} != kinds:
                raise self.error(f"{path}: expected tensors {expected}, found {kinds}")
            large = {n for n, p in file.entries.items() if map_above is not None and p.end - p.start > map_above}
            mapped = large - {"names", "offsets"}
            return file.metadata, {name: file.tensor(name, name in mapped) for name in kinds}, mapped

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[TensorFile]:
        """Open a file of this kind; its metadata is checked.

        Raises:
            SchemaError: The file was written for a newer reader.
            SarInferError: It is missing, damaged or of another kind; it is the kind's ``error``.
        """
        if path.is_dir():
            raise self.error(f"{path}: is a folder; expected a {self.noun} file that {self.writer} wrote")
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else f"no such {self.noun} file"
            raise self.error(f"{path}: {problem}")
        try:
            with path.open("rb") as stream:
                if stream.read(9)[8:] != b"{":  # where the header begins, in every file of this form
                    raise self.error(f"{path}: not a {self.noun} file; expected one that {self.writer} wrote")
                stream.seek(0)
                file = TensorFile(stream)
                self.check_metadata(path, file.metadata)
                yield file
        except (ValueError, OSError) as error:
            raise self.error(f"{path}: not a readable safetensors file ({error})") from None

    def check_metadata(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Check that a file is of this kind, and that this code can read it.

        Raises:
            SchemaError: It was written for a newer reader.
            SarInferError: It is of another kind, or metadata is missing; it is the kind's ``error``.
        """
        if (stored_format := metadata.get("format")) != self.format:
            raise self.error(
                f"{path}: not a class {self.noun} (metadata 'format' is {stored_format!r}, not {self.format!r})"
            )
        needed = metadata.get("min_reader", "")
        if needed.isdecimal() and int(needed) > self.reader:
            raise SchemaError(f"{path}: needs a reader of version {needed}, this is {self.reader}: upgrade sar-clip")
        for key in (*_METADATA, *self.metadata):
            if key not in metadata:
                raise self.error(f"{path}: metadata has no {key!r}")


def digest_of(*tensors: npt.NDArray[Any]) -> str:
    """Return the SHA-256 (hex) of the tensors' bytes, little-endian, read in pieces."""
    digest = hashlib.sha256()
    for tensor in tensors:
        for piece in tensor_bytes(tensor):
            digest.update(piece)
    return digest.hexdigest()


def packed(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return names in UTF-8, end to end, and (C+1,) where each begins and the last one ends.

    Raises:
        UnicodeEncodeError: A name holds half a surrogate pair; it is a ValueError.
    """
    encoded = [name.encode("utf-8") for name in names]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def unpacked(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Return the names that ``packed`` has packed.

    Raises:
        ValueError: The offsets do not fit, or a name is not UTF-8.
    """
    fits = (
        (data.ndim, offsets.ndim) == (1, 1)
        and offsets.size > 0
        and offsets[0] == 0
        and offsets[-1] == data.size
        and not (offsets[1:] < offsets[:-1]).any()
    )
    if not fits:
        raise ValueError(f"name offsets do not fit the {data.size} bytes of names")
    if ((data[offsets[offsets < data.size]] & 0xC0) == _CONTINUES).any():
        raise ValueError("name offsets cut a character in two")
    content, bounds = data.tobytes(), offsets.tolist()
    if not content.isascii():
        return tuple(content[start:stop].decode("utf-8") for start, stop in itertools.pairwise(bounds))
    text = content.decode("ascii")
    return tuple([text[start:stop] for start, stop in itertools.pairwise(bounds)])


def read_only(array: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """Return a view that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view
