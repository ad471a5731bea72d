"""A flat folder of files, local or in storage, each of which appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from sar_infer.bulk.locations import filesystem, is_url
from sar_infer.errors import InputError, WriteError, raised_as, reason_of
from sar_infer.storage.files import owned, remove_cut_off, replacing

Fill = Callable[[IO[bytes]], object]
"""Writes the content of a file."""


def open_store(out: str) -> Store:
    """Return the store at a path or URL.

    Raises:
        InputError: the URL cannot be opened, or the path is a file.
    """
    path = out
    if is_url(out):
        system, path = filesystem(out)
        if "file" not in system.protocol:
            return ObjectStore(out.rstrip("/"), system, path.rstrip("/"))
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{out}: is a file; name a folder as --out")
    return LocalFolder(folder)


class LocalFolder:
    """A folder of this machine, or one that several machines share; it is created by the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.location = folder, str(folder)

    def locked(self) -> contextlib.AbstractContextManager[Any]:
        """Keep other processes out; WriteError if one has the folder."""
        return owned(self.folder / "parts")

    def names(self) -> set[str]:
        """Return the names of all complete files; none if there is no such folder."""
        if not self.folder.is_dir():
            return set()
        return {entry.name for entry in os.scandir(self.folder) if not entry.name.startswith(".")}

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a seekable stream."""
        return (self.folder / name).open("rb")

    def put(self, name: str, fill: Fill) -> None:
        """Write a file; WriteError if that fails. Even a power cut leaves the whole file or none."""
        with raised_as(WriteError, f"{self.folder / name}: cannot be written", OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / name) as stream:
                fill(stream)

    def clear(self) -> None:
        """Remove what killed runs have left unfinished."""
        remove_cut_off(self.folder)

    def discard(self, name: str) -> None:
        """Remove a file if it exists."""
        (self.folder / name).unlink(missing_ok=True)


class ObjectStore:
    """A prefix in storage. A file is written locally and put there in one step; the later of two writers stays."""

    def __init__(self, location: str, system: Any, path: str) -> None:
        self.location, self._system, self._path = location, system, path

    def locked(self) -> contextlib.AbstractContextManager[Any]:
        """Do nothing: there are no locks in storage, and two runs would write the same parts."""
        return contextlib.nullcontext()

    def names(self) -> set[str]:
        """Return the names of all files; none if there is no such prefix."""
        try:
            paths = self._system.ls(self._path, detail=False)
        except FileNotFoundError:
            return set()
        return {posixpath.basename(name.rstrip("/")) for name in paths}

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a seekable stream."""
        stream: IO[bytes] = self._system.open(f"{self._path}/{name}", "rb")
        return stream

    def put(self, name: str, fill: Fill) -> None:
        """Write a file; WriteError if that fails, here for a moment or there."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, name)
                with file.open("wb") as stream:
                    fill(stream)
                with raised_as(WriteError, f"{self.location}/{name}: cannot be written"):
                    self._system.put_file(str(file), f"{self._path}/{name}")
        except OSError as error:
            raise WriteError(
                f"the folder for temporary files ({os.environ.get('TMPDIR', '/tmp')}) cannot be written: "  # noqa: S108
                f"{reason_of(error)}; set TMPDIR to another"
            ) from None

    def clear(self) -> None:
        """Do nothing: an object that was not put whole does not exist."""

    def discard(self, name: str) -> None:
        """Remove a file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")


Store = LocalFolder | ObjectStore
