"""A table as one value, and its rendering as Markdown, CSV, LaTeX, HTML and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

from sar_train.report.scores import Mean

Tone = Literal["", "up", "down"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the text shown in every format.
        value: a number at full precision, for CSV and JSON.
        sd: its standard deviation as shown.
        spread: its standard deviation at full precision.
        bold: it is the best of its kind.
        tone: ``up`` for a gain, ``down`` for a loss.
    """

    text: str = ""
    value: float | None = None
    sd: str = ""
    spread: float | None = None
    bold: bool = False
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """A column's head. Columns with the same ``group`` share one heading; ``text`` is aligned to the left."""

    name: str
    group: str = ""
    text: bool = False

    @property
    def flat(self) -> str:
        """Return the head on one line."""
        return f"{self.group}: {self.name}" if self.group else self.name


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table.

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
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())
    folded: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.key}: every row needs {len(self.columns)} cells")


def words(text: object) -> Cell:
    """Return a cell of text."""
    return Cell(str(text))


def number(value: float | None, digits: int = 1, *, sd: float | None = None) -> Cell:
    """Return a rounded number, empty for None."""
    if value is None:
        return Cell()
    return Cell(_rounded(value, digits), value, "" if sd is None else _rounded(sd, digits), sd)


def averaged(found: Mean | None, digits: int = 1) -> Cell:
    """Return a mean with its standard deviation, empty for None."""
    return number(found.value, digits, sd=found.sd) if found else Cell()


def difference(after: float | None, before: float | None, digits: int = 1, *, good: int = 1) -> Cell:
    """Return ``after - before`` with its sign; ``good`` is 1 if more is better, -1 if less is, 0 for neither."""
    if after is None or before is None:
        return Cell()
    cell = number(after - before, digits)
    moved = float(cell.text)
    tone: Tone = "" if not moved * good else "up" if moved * good > 0 else "down"
    return dataclasses.replace(cell, text=f"{moved:+.{digits}f}" if moved else cell.text, tone=tone)


def embolden(rows: Iterable[Row], places: Sequence[Sequence[int]], *, leave: Iterable[int] = ()) -> tuple[Row, ...]:
    """Mark the largest numbers, all that are equal as shown.

    Args:
        rows: the rows of a table.
        places: groups of columns that compete with one another.
        leave: numbers of the rows that do not take part.
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
    plain = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\|`*<\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", plain)


def _markdown_cell(cell: Cell) -> str:
    text = f"**{_markdown(cell.text)}**" if cell.bold else _markdown(cell.text)
    return f"{text} ± {cell.sd}" if cell.sd else text


def to_csv(table: Table) -> str:
    """Return CSV at full precision; a column with standard deviations is followed by one for these."""
    heads, rows = _flat(table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return text.getvalue()


def to_json(tables: Iterable[Table]) -> str:
    """Return a list of tables, rows as objects by column, numbers at full precision."""
    found = []
    for table in tables:
        heads, rows = _flat(table)
        by_column: list[dict[str, Any]] = [dict(zip(heads, row, strict=True)) for row in rows]
        content = {"key": table.key, "section": table.section, "title": table.title, "rows": by_column}
        found.append(content | {"notes": list(table.notes)})
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def _flat(table: Table) -> tuple[list[str], list[list[Any]]]:
    heads: list[str] = []
    columns: list[list[Any]] = []
    for j, column in enumerate(table.columns):
        cells = [row[j] for row in table.rows]
        heads.append(column.flat)
        columns.append([(c.text or None) if c.value is None else c.value for c in cells])
        if any(cell.spread is not None for cell in cells):
            heads.append(f"{column.flat} sd")
            columns.append([cell.spread for cell in cells])
    return heads, [list(row) for row in zip(*columns, strict=True)]


def to_latex(table: Table) -> str:
    r"""Return a ``table`` with the rules of booktabs: ``\usepackage{booktabs}``."""
    shape = "".join("l" if column.text else "r" for column in table.columns)
    lines = [r"\begin{table}[t]", r"\centering", rf"\caption{{{_latex(table.title)}.}}", rf"\label{{tab:{table.key}}}"]
    lines += [rf"\begin{{tabular}}{{{shape}}}", r"\toprule", *_latex_groups(table.columns)]
    lines.append(" & ".join(_latex(column.name) for column in table.columns) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        lines.append(r"\par\smallskip\footnotesize " + " ".join(_latex(_sentence(note)) for note in table.notes))
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


def _latex_groups(columns: tuple[Column, ...]) -> list[str]:
    if not any(column.group for column in columns):
        return []
    heads, rules, at = [], [], 1
    for group, span in spans(columns):
        heads.append(rf"\multicolumn{{{span}}}{{c}}{{{_latex(group)}}}" if group else " & ".join([""] * span))
        if group:
            rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
        at += span
    return [" & ".join(heads) + r" \\", " ".join(rules)]


def spans(columns: Iterable[Column]) -> list[tuple[str, int]]:
    """Return the groups of neighbouring columns, and how many columns each has."""
    return [(group, len(list(found))) for group, found in itertools.groupby(columns, key=lambda column: column.group)]


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in re.sub(r"\s+", " ", text))


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    if cell.value is not None and text.startswith("-"):
        text = f"$-${text[1:]}"
    text = rf"\textbf{{{text}}}" if cell.bold else text
    return rf"{text} {{\scriptsize $\pm$ {cell.sd}}}" if cell.sd else text


def to_html(table: Table) -> str:
    """Return a ``table`` element; the page adds its title, an element ``title-KEY``, and its notes."""
    lines = [f'<table id="table-{escape(table.key)}" aria-labelledby="title-{escape(table.key)}">', "<thead>"]
    if any(column.group for column in table.columns):
        groups = [
            f'<th scope="colgroup" colspan="{span}">{escape(group)}</th>' if group else f'<td colspan="{span}"></td>'
            for group, span in spans(table.columns)
        ]
        lines.append(f'<tr class="groups">{"".join(groups)}</tr>')
    starts = _starts(table.columns)
    heads = [
        f'<th scope="col"{_class(column, start=start)}>{escape(column.name)}</th>'
        for column, start in zip(table.columns, starts, strict=True)
    ]
    lines += [f"<tr>{''.join(heads)}</tr>", "</thead>", "<tbody>"]
    for row in table.rows:
        cells = [_html(cell, column, start=s) for cell, column, s in zip(row, table.columns, starts, strict=True)]
        first = cells[0].replace("<td", '<th scope="row"', 1).removesuffix("</td>") + "</th>"
        lines.append(f"<tr>{''.join([first, *cells[1:]])}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _starts(columns: tuple[Column, ...]) -> list[bool]:
    """Say for each column whether it starts a group after another."""
    return [j > 0 and column.group != columns[j - 1].group for j, column in enumerate(columns)]


def _class(column: Column, *, start: bool, tone: str = "") -> str:
    names = ["text" if column.text else "", "start" if start else "", tone]
    found = " ".join(name for name in names if name)
    return f' class="{found}"' if found else ""


def _html(cell: Cell, column: Column, *, start: bool) -> str:
    text = escape(cell.text)
    if cell.value is not None and text.startswith("-"):
        text = f"−{text[1:]}"
    text = f"<strong>{text}</strong>" if cell.bold else text
    if cell.sd:
        text += f' <span class="sd">± {escape(cell.sd)}</span>'
    return f"<td{_class(column, start=start, tone=cell.tone)}>{text}</td>"


FORMATS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "tex": to_latex, "md": to_markdown}
"""Functions by the ending of a file."""
