"""Answers in one SQLite file: each is committed before it counts, and one process at a time has the file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sar_infer.bank.edits import utc_now
from sar_infer.errors import InputError, WriteError
from sar_infer.images.inputs import write_class_list
from sar_infer.storage.files import locked

_VERSION = 1
_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE answers (
    id INTEGER PRIMARY KEY, question INTEGER NOT NULL, kind TEXT NOT NULL, digest BLOB NOT NULL, photo TEXT NOT NULL,
    label TEXT, at TEXT NOT NULL, author TEXT NOT NULL
);
CREATE TABLE looks (
    answers INTEGER PRIMARY KEY, accuracy REAL, low REAL NOT NULL, high REAL NOT NULL, held_out INTEGER NOT NULL,
    agreement REAL
);
"""
_ROW = "SELECT question, kind, digest, photo, label FROM answers"
ANSWERED, GROUPED, OPEN, SKIPPED, LISTED = "answered", "grouped", "open", "skipped", "listed"
"""Kinds of rows: a label; a label of a photo of a group; a photo of a group that was unticked; a skipped photo; a label
of the list that the heap was opened with, which is no answer to a question."""


class Row(NamedTuple):
    """A photo of a question: its number, kind, digest of the pixels, path, and class; None is *none of the classes*."""

    question: int
    kind: str
    digest: bytes
    photo: str
    label: str | None


class Look(NamedTuple):
    """The estimate after a number of answers; agreement is None at the first look after the file was opened."""

    answers: int
    accuracy: float | None
    low: float
    high: float
    held_out: int
    agreement: float | None


class Answers:
    """The answers file; not safe to share between threads, `Labelling` has the lock.

    Attributes:
        rows: All rows, the oldest first.

    Args:
        path: The file, which is made if it is missing.
        author: Is stored with each answer.

    Raises:
        InputError: The file is damaged or no answers file, or its folder is missing.
        WriteError: Another process has it, or it cannot be written.
    """

    def __init__(self, path: Path, author: str = "") -> None:
        self.path, self._author = path, author
        if not path.parent.is_dir():
            raise InputError(f"{path}: no such folder; make it first")
        self._stack = contextlib.ExitStack()
        try:
            self._stack.enter_context(locked(path))
        except BlockingIOError:
            raise WriteError(f"{path}: {_owner(path)} has it open; close that one first") from None
        try:
            self._db = self._opened()
            self.rows = [Row(*row) for row in self._db.execute(f"{_ROW} ORDER BY id")]
        except BaseException as error:
            self._stack.close()
            if isinstance(error, sqlite3.OperationalError):
                raise WriteError(f"{path}: cannot be written: {error}") from None
            if isinstance(error, sqlite3.DatabaseError):
                raise InputError(
                    f"{path}: damaged, or no answers file ({error}); it is left as it is. "
                    f"Write its readable answers to a list: sar_infer.labelling.rescue({str(path)!r}, 'answers.csv')"
                ) from None
            raise

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._stack.callback(db.close)
        if (version := db.execute("PRAGMA user_version").fetchone()[0]) > _VERSION:
            raise InputError(f"{self.path}: written by a newer sar-clip (format {version}, this one reads {_VERSION})")
        if (found := db.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(" ".join(str(found).split()))
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # an answer that was confirmed outlives a power cut
        if not version:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise InputError(f"{self.path}: another program's SQLite file; choose another name for the answers")
            with _transaction(db):
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("INSERT OR REPLACE INTO settings VALUES ('process', ?)", (str(os.getpid()),))
        return db

    def setting(self, name: str, default: str) -> str:
        """Return a setting; the default is stored if there is none."""
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, default))
        return str(self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()[0])

    def set(self, name: str, value: str) -> None:
        """Store a setting."""
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def add(self, rows: Iterable[tuple[str, bytes, str, str | None]]) -> None:
        """Commit kind, digest, photo and class of each photo of one question.

        Raises:
            WriteError: They cannot be written, as on a full disk; none of them is stored.
        """
        number, now = self.rows[-1].question + 1 if self.rows else 1, utc_now()
        new = [Row(number, *row) for row in rows]
        with self._writing():
            self._db.executemany(
                "INSERT INTO answers (question, kind, digest, photo, label, at, author) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*row, now, self._author) for row in new],
            )
        self.rows += new

    def undo(self) -> list[Row]:
        """Delete the latest question that was answered or skipped, and return its rows; none if there is none.

        Raises:
            WriteError: The file cannot be written; nothing was deleted.
        """
        last = max((row.question for row in self.rows if row.kind != LISTED), default=None)
        gone, left = (
            [row for row in self.rows if row.question == last],
            [row for row in self.rows if row.question != last],
        )
        if not gone:
            return []
        with self._writing():
            self._db.execute("DELETE FROM answers WHERE question = ?", (last,))
            self._db.execute("DELETE FROM looks WHERE answers > ?", (count(left),))
        self.rows = left
        return gone

    def looks(self) -> list[Look]:
        """Return the estimates so far, the oldest first."""
        names = ", ".join(Look._fields)
        return [Look(*row) for row in self._db.execute(f"SELECT {names} FROM looks ORDER BY answers")]  # noqa: S608 - constant

    def add_look(self, look: Look) -> None:
        """Store an estimate."""
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?, ?)", look)

    def close(self) -> None:
        """Close the file, and let other processes have it."""
        self._stack.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with _transaction(self._db):
                yield
        except sqlite3.Error as error:
            raise WriteError(f"{self.path}: not stored: {error}; nothing was changed") from None


def count(rows: Sequence[Row]) -> int:
    """Return the number of questions that were answered."""
    return len({row.question for row in rows if row.kind in (ANSWERED, GROUPED)})


def labels(rows: Iterable[Row]) -> dict[bytes, str | None]:
    """Return the latest class of each answered photo by its digest; None is *none of the classes*."""
    return {row.digest: row.label for row in rows if row.kind in (ANSWERED, GROUPED, LISTED)}


def rescue(answers: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write the readable answers of a damaged file to a list (CSV), and return their number; the file is unchanged.

    Raises:
        InputError: Nothing can be read.
        WriteError: The list cannot be written.
    """
    path, rows = Path(answers), dict[int, tuple[str, str, str | None]]()
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(path)) as db:
        for order in ("ASC", "DESC"):  # from both ends up to the damage
            with contextlib.suppress(sqlite3.Error):
                for row in db.execute(f"SELECT id, kind, photo, label FROM answers ORDER BY id {order}"):  # noqa: S608
                    rows[row[0]] = row[1:]
    labelled = (row for _, row in sorted(rows.items()) if row[0] not in (OPEN, SKIPPED))
    latest = {photo: label for _, photo, label in labelled}
    if not latest:
        raise InputError(f"{path}: no answer in it can be read")
    base = Path(out).absolute().parent
    write_class_list(Path(out), [(label or "", os.path.relpath(photo, base), "") for photo, label in latest.items()])
    return len(latest)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _owner(path: Path) -> str:
    """Return which process has an answers file, in words."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(path)) as db:
        number = db.execute("SELECT value FROM settings WHERE name = 'process'").fetchone()[0]
        return f"process {number}"
    return "another process"


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
