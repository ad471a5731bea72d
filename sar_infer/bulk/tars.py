"""Read tar shards as webdataset writes them, image by image, without unpacking to disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

from sar_infer.bulk.items import MOST_BYTES, Flaw, Item, printable
from sar_infer.bulk.locations import open_binary
from sar_infer.images.formats import has_image_suffix

SUFFIX = ".tar"


def members(location: str) -> Iterator[Item]:
    """Yield the members of an uncompressed tar that have the suffix of an image; keys are ``SHARD/MEMBER``.

    Args:
        location: Path or URL.

    Raises:
        ValueError: the tar is damaged: ``tarfile`` takes a damaged header for its end.
        Exception: it is missing or out of reach; every storage has errors of its own.
    """
    with open_binary(location) as stream:
        archive = tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        at = -1
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # which would hold the headers of all
            if archive.offset <= at:  # a negative size
                raise ValueError(f"damaged at byte {at}")
            at = archive.offset
            name = PurePosixPath(member.name).name
            if not member.isdir() and has_image_suffix(name) and not name.startswith("."):
                yield Item(f"{printable(location)}/{printable(member.name)}", _content(archive, member))
        at = archive.offset
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


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Flaw:
    if not member.isreg():
        return Flaw("unreadable", "cannot be read: a link or a device in the shard, not a file")
    if member.size > MOST_BYTES:
        return Flaw("size", f"too large: {member.size} bytes, at most {MOST_BYTES}")
    try:
        return archive.extractfile(member).read()  # type: ignore[union-attr] # None for links and devices alone
    except tarfile.ReadError:
        return Flaw("unreadable", "cannot be read: the shard ends inside it")
