"""A table as one value, which every format is rendered from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sar_train.report.scores import Mean

Tone = Literal["", "up", "down"]


@dataclass(frozen=True)
class Cell:
    """What a place of a table shows.

    Attributes:
        text: as shown, in every format.
        value: a number at full precision, for CSV and JSON.
        sd: its standard deviation, as shown after it.
        spread: the same at full precision.
        bold: the best of its kind.
        tone: whether a difference is a gain or a loss.
    """

    text: str = ""
    value: float | None = None
    sd: str = ""
    spread: float | None = None
    bold: bool = False
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """A column's head; columns with the same ``group`` stand under one heading. ``text`` is set to the left."""

    name: str
    group: str = ""
    text: bool = False

    @property
    def flat(self) -> str:
        """The head where there is one line for it."""
        return f"{self.group}: {self.name}" if self.group else self.name


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        key: its file's name.
        section: the part of the report that it belongs to.
        title: says what is in it, without the rest of the report.
        columns: heads.
        rows: as many cells each as there are columns.
        notes: one line each, shown below.
        folded: shown when asked for.
    """

    key: str
    section: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())
    folded: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.key}: every row needs {len(self.columns)} cells")


def words(text: object) -> Cell:
    """A cell of text."""
    return Cell(str(text))


def number(value: float | None, digits: int = 1, *, sd: float | None = None) -> Cell:
    """A rounded number, empty where there is none."""
    if value is None:
        return Cell()
    return Cell(_rounded(value, digits), value, "" if sd is None else _rounded(sd, digits), sd)


def averaged(found: Mean | None, digits: int = 1) -> Cell:
    """A mean with its standard deviation, empty where there is none."""
    return number(found.value, digits, sd=found.sd) if found else Cell()


def difference(after: float | None, before: float | None, digits: int = 1, *, good: int = 1) -> Cell:
    """How much more ``after`` is, with its sign; ``good``: 1 where more is better, -1 where less is, 0 for neither."""
    if after is None or before is None:
        return Cell()
    cell = number(after - before, digits)
    moved = float(cell.text)
    tone: Tone = "" if not moved * good else "up" if moved * good > 0 else "down"
    return dataclasses.replace(cell, text=f"{moved:+.{digits}f}" if moved else cell.text, tone=tone)


def embolden(rows: Iterable[Row], places: Sequence[Sequence[int]], *, leave: Iterable[int] = ()) -> tuple[Row, ...]:
    """Mark the largest numbers as they are shown, all of them where several are equal.

    Args:
        rows: of a table.
        places: groups of columns that compete with one another.
        leave: numbers of rows that do not take part.
    """
    changed, apart = [list(row) for row in rows], set(leave)
    for group in places:
        shown = [
            (float(changed[i][j].text), i, j)
            for i in range(len(changed))
            for j in group
            if i not in apart and changed[i][j].value is not None
        ]
        best = max((value for value, _, _ in shown), default=None)
        for value, i, j in shown:
            if value == best and len(shown) > 1:
                changed[i][j] = dataclasses.replace(changed[i][j], bold=True)
    return tuple(tuple(row) for row in changed)


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if not float(text) else text
