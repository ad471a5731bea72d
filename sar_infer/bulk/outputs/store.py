"""A flat folder of files, local or in storage, each of which appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from sar_infer.bulk.locations import filesystem, is_url, open_binary, patiently
from sar_infer.errors import WriteError, reason_of
from sar_infer.storage.files import sync_folder

_PARTIAL = ".partial"


class Store(Protocol):
    """Where parts are kept. If two writers write one file, the later one's stays, whole."""

    location: str

    def names(self) -> set[str]:
        """Return the names of all complete files; none if there is no such folder."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a seekable stream."""

    def stage(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Give a local path to write to; the file appears when the block ends without an error."""

    def discard(self, name: str) -> None:
        """Remove a file if it exists."""

    def clear(self, mine: Callable[[str], bool]) -> None:
        """Remove unfinished files that killed runs have left under names for which ``mine`` is true."""


def open_store(out: str) -> Store:
    """Return the store at a path or URL.

    Raises:
        InputError: the URL cannot be opened.
    """
    if not is_url(out):
        return LocalFolder(Path(out))
    system, path = filesystem(out)
    return LocalFolder(Path(path)) if "file" in system.protocol else _Stored(out.rstrip("/"), system, path)


def write_text(store: Store, name: str, text: str) -> None:
    """Write a small file."""
    with store.stage(name) as path:
        path.write_text(text, "utf-8")


def read_text(store: Store, name: str) -> str:
    """Return the content of a small file."""
    with store.open(name) as stream:
        return stream.read().decode("utf-8")


class LocalFolder:
    """A folder of this machine, or one that several machines share; it is created by the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.location = str(folder)

    def names(self) -> set[str]:
        """See ``Store``."""
        if not self.folder.is_dir():
            return set()
        return {entry.name for entry in os.scandir(self.folder) if not entry.name.startswith(".")}

    def open(self, name: str) -> IO[bytes]:
        """See ``Store``."""
        return (self.folder / name).open("rb")

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        """Write under a hidden name, sync, then rename, so that even a power cut leaves the whole file or none."""
        temporary = self.folder / f".{name}.{secrets.token_hex(4)}{_PARTIAL}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(self.folder / name)
            sync_folder(self.folder)
        except OSError as error:
            raise WriteError(f"{self.folder / name}: cannot be written: {reason_of(error)}") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def clear(self, mine: Callable[[str], bool]) -> None:
        """See ``Store``."""
        for entry in self.folder.glob(f".*{_PARTIAL}"):
            name = entry.name.removesuffix(_PARTIAL)[1:].rpartition(".")[0]
            if mine(name):
                entry.unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        """See ``Store``."""
        (self.folder / name).unlink(missing_ok=True)

    def remove_if_empty(self) -> None:
        """Remove the folder if it is empty."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class _Stored:
    """A prefix in storage; a file is written locally and put there in one step."""

    def __init__(self, location: str, system: Any, path: str) -> None:
        self.location = location
        self._system, self._path = system, path.rstrip("/")

    def names(self) -> set[str]:
        """See ``Store``."""
        try:
            paths = patiently(lambda: self._system.ls(self._path, detail=False))
            return {posixpath.basename(name.rstrip("/")) for name in paths}
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> IO[bytes]:
        """See ``Store``."""
        return open_binary(f"{self.location}/{name}")

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        """See ``Store``."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / name
            yield local
            try:
                patiently(lambda: self._system.put_file(str(local), f"{self._path}/{name}"))
            except Exception as error:  # every storage has errors of its own
                raise WriteError(f"{self.location}/{name}: cannot be written: {reason_of(error)}") from None

    def discard(self, name: str) -> None:
        """See ``Store``."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")

    def clear(self, mine: Callable[[str], bool]) -> None:
        """Do nothing: an object that was not put whole does not exist."""
