"""A table as one value, and its rendering as Markdown, CSV, LaTeX and JSON; ``page.html.j2`` has HTML."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sar_train.report.scores import Mean


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the text shown in every format.
        value: a number at full precision, for CSV and JSON.
        sd: as shown after ±: its standard deviation, or half the width of a difference's 95 % interval.
        spread: that at full precision.
        bold: it is the best of its kind.
        tone: ``up`` for a gain, ``down`` for a loss.
    """

    text: str = ""
    value: float | None = None
    sd: str = ""
    spread: float | None = None
    bold: bool = False
    tone: Literal["", "up", "down"] = ""


@dataclass(frozen=True)
class Difference:
    """``after - before`` with its sign, empty where one is None; a gain or loss has a tone.

    ``interval`` is half the width of its 95 % interval.
    """

    after: Mean | float | None
    before: Mean | float | None
    interval: float | None = None


Value = str | float | Mean | Difference | Cell | None
"""A row's value for a column."""


@dataclass(frozen=True)
class Column:
    """A column's head, and how its values are shown.

    Attributes:
        name: the head.
        group: columns with the same one share a heading.
        text: aligned to the left.
        digits: after the point.
        rivals: columns with the same one compete for the bold figure; empty: nothing in the column is bold.
        note: explains the column; both are left out of a table that has no value for any column with this note.
    """

    name: str
    group: str = ""
    text: bool = False
    digits: int = 1
    rivals: str = ""
    note: str = ""

    @property
    def flat(self) -> str:
        """Return the head on one line."""
        return f"{self.group}: {self.name}" if self.group else self.name


@dataclass(frozen=True)
class Table:
    """A table, as `make_table` returns it.

    Attributes:
        key: its file's name.
        section: the part of the report that it belongs to.
        title: its content, clear without the rest of the report.
        columns: the heads.
        rows: as many cells each as there are columns.
        notes: one line each, shown below.
        folded: hidden until the reader opens it.
    """

    key: str
    section: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    folded: bool = False

    @property
    def groups(self) -> list[tuple[str, list[Column]]]:
        """Return the groups of neighbouring columns."""
        return [(group, list(columns)) for group, columns in itertools.groupby(self.columns, lambda c: c.group)]


def make_table(
    key: str,
    section: str,
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Value]],
    notes: Iterable[str] = (),
    *,
    apart: Collection[int] = (),
    folded: bool = False,
) -> Table:
    """Return a table with its best figures in bold: the largest, all that are equal as shown.

    Args:
        key: its file's name.
        section: the part of the report that it belongs to.
        title: its content.
        columns: the heads, with those whose `Column.note` decides whether they are shown.
        rows: a value for each column.
        notes: lines below the table, those of columns among them.
        apart: numbers of the rows that do not compete.
        folded: hidden until the reader opens it.

    Raises:
        ValueError: a row has not one value for each column.
    """
    cells = [[_cell(value, column.digits) for value, column in zip(row, columns, strict=True)] for row in rows]
    for rivals in {column.rivals for column in columns} - {""}:
        shown = [
            (float(row[j].text), row, j)
            for i, row in enumerate(cells)
            for j, column in enumerate(columns)
            if column.rivals == rivals and i not in apart and row[j].value is not None
        ]
        best = max((value for value, _, _ in shown), default=None)
        for value, row, j in shown:
            if value == best and len(shown) > 1:
                row[j] = dataclasses.replace(row[j], bold=True)
    measured = {column.note for row in cells for cell, column in zip(row, columns, strict=True) if cell.text}
    empty = {column.note for column in columns} - measured
    keep = [j for j, column in enumerate(columns) if not column.note or column.note not in empty]
    heads, shown_notes = tuple(columns[j] for j in keep), tuple(note for note in notes if note not in empty)
    return Table(key, section, title, heads, tuple(tuple(row[j] for j in keep) for row in cells), shown_notes, folded)


def _cell(value: Value, digits: int) -> Cell:
    match value:
        case Cell():
            return value
        case str():
            return Cell(value)
        case None:
            return Cell()
        case Mean():
            return Cell(_rounded(value.value, digits), value.value, *_spread(value.sd, digits))
        case Difference():
            after, before = (end.value if isinstance(end, Mean) else end for end in (value.after, value.before))
            if after is None or before is None:
                return Cell()
            text = _rounded(after - before, digits)
            text = f"+{text}" if float(text) > 0 else text
            tone: Literal["", "up", "down"] = "up" if float(text) > 0 else "down" if float(text) < 0 else ""
            return Cell(text, after - before, *_spread(value.interval, digits), tone=tone)
    return Cell(_rounded(value, digits), value)


def _spread(sd: float | None, digits: int) -> tuple[str, float | None]:
    return "" if sd is None else _rounded(sd, digits), sd


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if not float(text) else text


# ------------------------------------------------------------------------------------------------------- renderings
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "–": "--", "→": r"$\to$", "≥": r"$\geq$",
}  # fmt: skip


def to_markdown(table: Table) -> str:
    """Return a table in GitHub's Markdown under its title in bold, with the notes below."""
    heads = [_markdown(column.flat) for column in table.columns]
    rule = ["---" if column.text else "---:" for column in table.columns]
    rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    lines = [f"**{_markdown(table.title)}**", ""]
    lines += ["| " + " | ".join(row) + " |" for row in (heads, rule, *rows)]
    if table.notes:
        lines += ["", *(f"- {_markdown(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    return re.sub(r"([\\|`*<\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", re.sub(r"\s+", " ", text))


def _markdown_cell(cell: Cell) -> str:
    text = f"**{_markdown(cell.text)}**" if cell.bold else _markdown(cell.text)
    return f"{text} ± {cell.sd}" if cell.sd else text


def to_csv(table: Table) -> str:
    """Return CSV at full precision; a column with figures after ± is followed by one for these."""
    heads, rows = _flat(table)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])  # None is empty
    return text.getvalue()


def to_json(tables: Iterable[Table]) -> str:
    """Return a list of tables, rows as objects by column, numbers at full precision."""
    content = []
    for table in tables:
        heads, rows = _flat(table)
        by_column = [dict(zip(heads, row, strict=True)) for row in rows]
        about = {"key": table.key, "section": table.section, "title": table.title}
        content.append(about | {"rows": by_column, "notes": list(table.notes)})
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _flat(table: Table) -> tuple[list[str], list[list[Any]]]:
    heads: list[str] = []
    columns: list[list[Any]] = []
    for column, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True):
        heads.append(column.flat)
        columns.append([(cell.text or None) if cell.value is None else cell.value for cell in cells])
        if any(cell.spread is not None for cell in cells):
            heads.append(f"{column.flat} ±")
            columns.append([cell.spread for cell in cells])
    return heads, [list(row) for row in zip(*columns, strict=True)]


def to_latex(table: Table) -> str:
    r"""Return a ``table`` with the rules of booktabs: ``\usepackage{booktabs}``."""
    shape = "".join("l" if column.text else "r" for column in table.columns)
    lines = [r"\begin{table}[t]", r"\centering", rf"\caption{{{_latex(table.title)}.}}", rf"\label{{tab:{table.key}}}"]
    lines += [rf"\begin{{tabular}}{{{shape}}}", r"\toprule", *_latex_groups(table)]
    lines.append(" & ".join(_latex(column.name) for column in table.columns) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        sentences = (note if note.endswith((".", "!", "?")) else f"{note}." for note in table.notes)
        lines.append(r"\par\smallskip\footnotesize " + " ".join(map(_latex, sentences)))
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_groups(table: Table) -> list[str]:
    if not any(column.group for column in table.columns):
        return []
    heads, rules, at = [], [], 1
    for group, columns in table.groups:
        span = len(columns)
        heads.append(rf"\multicolumn{{{span}}}{{c}}{{{_latex(group)}}}" if group else " & ".join([""] * span))
        if group:
            rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
        at += span
    return [" & ".join(heads) + r" \\", " ".join(rules)]


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in re.sub(r"\s+", " ", text))


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    if cell.value is not None and text.startswith("-"):
        text = f"$-${text[1:]}"
    text = rf"\textbf{{{text}}}" if cell.bold else text
    return rf"{text} {{\scriptsize $\pm$ {cell.sd}}}" if cell.sd else text
