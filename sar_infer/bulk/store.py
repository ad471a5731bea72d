"""A flat folder of files, local or in storage, each of which appears whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import posixpath
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from sar_infer.bulk.locations import filesystem, is_url, open_binary, patiently
from sar_infer.errors import WriteError, reason_of
from sar_infer.storage.files import sync_folder

Fill = Callable[[Path], str | None]
"""Writes a file, and returns its name if that is another than was said."""


def open_store(out: str) -> Store:
    """Return the store at a path or URL.

    Raises:
        InputError: the URL cannot be opened.
    """
    if not is_url(out):
        return LocalFolder(Path(out))
    system, path = filesystem(out)
    return LocalFolder(Path(path)) if "file" in system.protocol else ObjectStore(out.rstrip("/"), system, path)


class LocalFolder:
    """A folder of this machine, or one that several machines share; it is created by the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.location = str(folder)

    def names(self) -> set[str]:
        """Return the names of all complete files; none if there is no such folder."""
        if not self.folder.is_dir():
            return set()
        return {entry.name for entry in os.scandir(self.folder) if not entry.name.startswith(".")}

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a seekable stream."""
        return (self.folder / name).open("rb")

    def put(self, name: str, fill: Fill) -> str:
        """Write under a hidden name, sync, then rename, so that even a power cut leaves the whole file or none.

        Raises:
            WriteError: the file cannot be written.
        """
        temporary = self.folder / f".{name}.{secrets.token_hex(4)}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = fill(temporary) or name
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(self.folder / name)
            sync_folder(self.folder)
        except OSError as error:
            raise WriteError(f"{self.folder / name}: cannot be written: {reason_of(error)}") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return name

    def clear(self, name: str = "") -> None:
        """Remove what killed runs have left unfinished, of one file if it is named."""
        for entry in self.folder.glob(f".{glob.escape(name)}*.partial"):
            entry.unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        """Remove a file if it exists."""
        (self.folder / name).unlink(missing_ok=True)


class ObjectStore:
    """A prefix in storage. A file is written locally and put there in one step; the later of two writers stays."""

    def __init__(self, location: str, system: Any, path: str) -> None:
        self.location = location
        self._system, self._path = system, path.rstrip("/")

    def names(self) -> set[str]:
        """Return the names of all files; none if there is no such prefix."""
        try:
            paths = patiently(lambda: self._system.ls(self._path, detail=False))
            return {posixpath.basename(name.rstrip("/")) for name in paths}
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a seekable stream."""
        return open_binary(f"{self.location}/{name}")

    def put(self, name: str, fill: Fill) -> str:
        """Write a file.

        Raises:
            WriteError: the file cannot be written, here for a moment or there.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / "file"
                name = fill(local) or name
                try:
                    patiently(lambda: self._system.put_file(str(local), f"{self._path}/{name}"))
                except Exception as error:  # every storage has errors of its own
                    raise WriteError(f"{self.location}/{name}: cannot be written: {reason_of(error)}") from None
        except OSError as error:
            raise WriteError(
                f"the folder for temporary files ({os.environ.get('TMPDIR', '/tmp')}) cannot be written: "  # noqa: S108
                f"{reason_of(error)}; set TMPDIR to another"
            ) from None
        return name

    def clear(self) -> None:
        """Do nothing: an object that was not put whole does not exist."""

    def discard(self, name: str) -> None:
        """Remove a file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")


Store = LocalFolder | ObjectStore


def write_text(store: Store, name: str, text: str) -> None:
    """Write a small file."""

    def fill(path: Path) -> None:
        path.write_text(text, "utf-8")

    store.put(name, fill)
