"""Packed results: one compressed file of JSON Lines for a folder of finished runs.

A line is one run: ``path``, where its JSON file lay below the folder, ``result``, the content of that file with
settings, key and digest of the code, and ``toml``, the file that repeats it. Lines are sorted by path and nothing else
goes in, so that the same results give the same bytes. A sweep never writes here: its results are files of their own,
which win over a packed one of the same path, and are packed when it is over.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from sar_infer.storage.files import locked
from sar_train.data.files import write_atomic
from sar_train.errors import DataError

ARCHIVE = "results.jsonl.xz"
RECORD = "record.json"
"""In run folders that were kept; not a result."""
PROTOCOLS = ("base-to-new", "few-shot", "cross-dataset", "domain-generalisation", "custom")
_PRESET = 9 | lzma.PRESET_EXTREME


@dataclass(frozen=True)
class PackedRun:
    """One line of a packed file."""

    path: PurePosixPath
    result: dict[str, Any]
    toml: str | None

    def line(self) -> str:
        """Return the line, without its end."""
        content = {"path": str(self.path), "result": self.result, "toml": self.toml}
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def unpack(folder: Path) -> tuple[PackedRun, ...]:
    """Return the packed runs of a folder, by path; none where it has no packed file.

    Raises:
        DataError: the file is damaged.
    """
    archive = folder / ARCHIVE
    try:
        state = archive.stat()
    except FileNotFoundError:
        return ()
    return _unpack(archive, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _unpack(archive: Path, *state: int) -> tuple[PackedRun, ...]:
    """Read a packed file, once in each of its states."""
    del state
    try:
        lines = lzma.decompress(archive.read_bytes()).decode("utf-8").split("\n")
        return tuple(_parse(line) for line in lines if line)
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError, lzma.LZMAError) as error:
        raise DataError(f"{archive}: damaged ({type(error).__name__}); restore it from where it came") from None


def _parse(line: str) -> PackedRun:
    content = json.loads(line)
    path, result, toml = PurePosixPath(content["path"]), content["result"], content["toml"]
    if path.is_absolute() or ".." in path.parts or not isinstance(result, dict) or not isinstance(toml, str | None):
        raise ValueError(line[:80])
    return PackedRun(path, result, toml)


def loose_files(folder: Path, apart: Path | None = None) -> Iterator[Path]:
    """Yield the JSON files below a folder that may be results, sorted.

    Args:
        folder: searched to any depth, except in folders whose name begins with a dot.
        apart: a folder to leave out.
    """
    return (path for path in _below(folder, "*.json", apart) if path.name != RECORD)


def packed_runs(folder: Path, apart: Path | None = None) -> Iterator[tuple[Path, PackedRun]]:
    """Yield the packed runs below a folder as `loose_files` searches it, each with its path as if it lay there loose.

    Raises:
        DataError: a packed file is damaged.
    """
    for archive in _below(folder, ARCHIVE, apart):
        yield from ((archive.parent / run.path, run) for run in unpack(archive.parent))


def _below(folder: Path, pattern: str, apart: Path | None) -> Iterator[Path]:
    for path in sorted(folder.rglob(pattern)):
        hidden = any(name.startswith(".") for name in path.relative_to(folder).parts)
        if path.is_file() and not hidden and not (apart and path.is_relative_to(apart)):
            yield path


def pack(folder: Path, tell: Callable[[str], None]) -> tuple[int, int]:
    """Move the finished runs below a folder into its packed file; a loose one replaces a packed one of the same path.

    The packed file is complete before a loose one is deleted. What is no result, a run that is not finished and the
    prompts of a finished one stay where they are.

    Args:
        folder: that of an experiment.
        tell: called with a line for each JSON file that is not a result.

    Returns:
        How many runs are packed now, and how many of them were loose before.

    Raises:
        DataError: there is no such folder or no result in it, its packed file is damaged, or it cannot be written.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    try:
        with locked(folder / ARCHIVE):
            loose = dict(_loose_runs(folder, tell))
            runs = {run.path: run for run in (*unpack(folder), *loose.values())}
            if not runs:
                raise DataError(f"{folder}: no results (*.json, written by sar-experiment) in it")
            if loose:
                lines = "".join(f"{runs[path].line()}\n" for path in sorted(runs))
                write_atomic(folder / ARCHIVE, lzma.compress(lines.encode(), preset=_PRESET))
            for path in loose:
                _delete(path, folder)
    except BlockingIOError:
        raise DataError(f"{folder}: is being packed by another process") from None
    return len(runs), len(loose)


def _loose_runs(folder: Path, tell: Callable[[str], None]) -> Iterator[tuple[Path, PackedRun]]:
    for path in loose_files(folder):
        toml = path.with_suffix(".toml")
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            text = toml.read_text(encoding="utf-8") if toml.is_file() else None
        except (OSError, ValueError, RecursionError) as error:
            tell(f"Warning: {path}: not readable ({type(error).__name__}); left where it is")
            continue
        if not isinstance(result, dict) or result.get("protocol") not in PROTOCOLS:
            tell(f"Warning: {path}: not a result; left where it is")
            continue
        yield path, PackedRun(PurePosixPath(path.relative_to(folder).as_posix()), result, text)


def _delete(path: Path, folder: Path) -> None:
    """Delete a result and its settings, and the folders that this leaves empty."""
    try:
        path.unlink()
        path.with_suffix(".toml").unlink(missing_ok=True)
        for parent in path.parents:
            if parent == folder or any(parent.iterdir()):
                return
            parent.rmdir()
    except OSError as error:
        raise DataError(f"{path}: is packed, but cannot be deleted ({error.strerror or error})") from None
