"""Read tar shards as webdataset writes them, image by image, without unpacking to disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from sar_infer.bulk.items import MOST_BYTES, Flaw, Item, printable
from sar_infer.bulk.locations import open_binary, size_of
from sar_infer.errors import InputError, reason_of
from sar_infer.images.formats import has_image_suffix

SUFFIX = ".tar"


@dataclass(frozen=True)
class TarShard:
    """One uncompressed tar file, identified by its location and size in bytes."""

    location: str
    size: int

    @classmethod
    def open(cls, location: str) -> TarShard:
        """Return the shard at a path or URL.

        Raises:
            InputError: it does not exist or cannot be read.
        """
        try:
            return cls(location, size_of(location))
        except InputError:
            raise
        except Exception as error:  # every storage has errors of its own
            raise InputError(f"{location}: cannot be read: {reason_of(error)}") from None

    @property
    def identity(self) -> dict[str, Any]:
        """Return kind, path or URL, and size."""
        return {"kind": "TarShard", "place": self.location, "size": self.size}

    @property
    def count(self) -> None:
        """Return None: the number is not known before the shard is read."""
        return

    def items(self) -> Iterator[Item | None]:
        """Yield members with an image suffix, keys ``SHARD/MEMBER``; if it is damaged, ``remainder`` is the last."""
        number = 0
        try:
            with open_binary(self.location) as stream:
                for item in self._members(stream):
                    yield item
                    number += item is not None
        except Exception as error:  # storage raises almost anything
            yield self.remainder(number, reason_of(error))

    def remainder(self, number: int, reason: str) -> Item:  # noqa: ARG002 - members have names, not numbers
        """Return one input, with key ``SHARD``, for all after the first ``number``, which cannot be read."""
        return Item(printable(self.location), Flaw("source", f"the rest cannot be read: {reason}"))

    def _members(self, stream: IO[bytes]) -> Iterator[Item | None]:
        archive = tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # which would hold the headers of all
            if member.isdir():
                continue
            name = PurePosixPath(member.name)
            is_image = has_image_suffix(name.name) and not name.name.startswith(".")
            key = f"{printable(self.location)}/{printable(member.name)}"
            yield Item(key, _content(archive, member)) if is_image else None
        _check_end(stream, archive.offset)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Flaw:
    if not member.isreg():
        return Flaw("unreadable", "cannot be read: a link or a device in the shard, not a file")
    if member.size > MOST_BYTES:
        return Flaw("size", f"too large: {member.size} bytes, at most {MOST_BYTES}")
    try:
        return archive.extractfile(member).read()  # type: ignore[union-attr] # None for links and devices alone
    except tarfile.ReadError:
        return Flaw("unreadable", "cannot be read: the shard ends inside it")


def _check_end(stream: IO[bytes], at: int) -> None:
    """Check that a shard was read to its end: ``tarfile`` takes a damaged header for it.

    Raises:
        ValueError: there is no end mark, or something follows it.
    """
    stream.seek(at)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise ValueError("it ends without the mark of an end, so something may be missing")
    if any(block):
        raise ValueError(f"damaged at byte {at}")
    if not at:
        raise ValueError("an archive of nothing")
    while block := stream.read(2**20):
        if block.count(0) < len(block):
            raise ValueError(f"more follows the mark of an end at byte {at}: a hole, or a second archive")
