"""How values are shown, and the renderings of a table."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_train.report.formats import (
    LATEX,
    Cell,
    Column,
    Difference,
    Table,
    Value,
    make_table,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)
from sar_train.report.scores import Mean


def shown(value: Value, digits: int = 1) -> Cell:
    return make_table("k", "s", "t", [Column("a", digits=digits)], [(value,)]).rows[0][0]


@pytest.mark.parametrize(
    ("value", "digits", "cell"),
    [
        (80.25, 1, Cell("80.2", 80.25)),
        (Mean(80.25, 1.26), 1, Cell("80.2", 80.25, "1.3", 1.26)),
        (0.856, 2, Cell("0.86", 0.856)),
        (None, 1, Cell()),
        ("", 1, Cell()),
        (Difference(3.5, 1.0), 1, Cell("+2.5", 2.5, tone="up")),
        (Difference(1.0, Mean(3.5, None)), 1, Cell("-2.5", -2.5, tone="down")),
        (Difference(1.0, 1.03125), 1, Cell("0.0", -0.03125)),
        (Difference(1.03125, 1.0), 1, Cell("0.0", 0.03125)),
        (Difference(2.0, 1.0, interval=0.25), 1, Cell("+1.0", 1.0, "0.2", 0.25, tone="up")),
        (Difference(None, 1.0), 1, Cell()),
    ],
)
def test_values_are_rounded_and_differences_have_a_sign_unless_they_are_none(
    value: Value, digits: int, cell: Cell
) -> None:
    assert shown(value, digits) == cell


@given(st.floats(-1000, 1000), st.integers(0, 3))
def test_there_is_no_negative_zero(value: float, digits: int) -> None:
    assert not (text := shown(value, digits).text).startswith("-") or float(text) != 0


@pytest.mark.parametrize(
    ("rows", "rivals", "apart", "bold"),
    [
        ([(80.01,), (80.04,), (70.0,), ("99.0",)], "x", [], [[True], [True], [False], [False]]),  # ties as shown
        ([(99.0, 1.0), (60.0, 70.0)], "xx", [0], [[False, False], [False, True]]),
        ([(99.0, 1.0), (60.0, 70.0)], "xy", [], [[True, False], [False, True]]),
        ([(99.0,), (60.0,)], [""], [], [[False], [False]]),
        ([(1.0,)], "x", [], [[False]]),  # a single number is not the best of anything
    ],
)
def test_the_best_of_columns_that_compete_is_bold(
    rows: list[tuple[Value, ...]], rivals: list[str], apart: list[int], bold: list[list[bool]]
) -> None:
    columns = [Column(f"c{number}", rivals=name) for number, name in enumerate(rivals)]
    table = make_table("k", "s", "t", columns, rows, apart=apart)
    assert [[cell.bold for cell in row] for row in table.rows] == bold


def test_columns_that_no_row_has_a_value_for_go_with_their_note() -> None:
    columns = [Column("a"), Column("b", note="about b"), Column("c", note="about c"), Column("d", note="about b")]
    table = make_table("k", "s", "t", columns, [(1.0, None, None, None), (2.0, 3.0, "", None)], ["about b", "about c"])
    assert [column.name for column in table.columns] == ["a", "b", "d"]
    assert table.notes == ("about b",)


NASTY = r"50% of R&D_{x} <b>$5 #1 ~ ^ \ | *a* `c` é a_b"


def table(*rows: tuple[Value, ...], title: str = "T") -> Table:
    columns = (Column("name", text=True), Column("base", "without"), Column("base", "with"))
    return make_table("key", "section", title, columns, rows, ("a note",))


SAMPLE = table((NASTY, Mean(80.25, 1.5), Difference(1.0, 3.4)), title=NASTY)
BOLD = table(("x", Cell("80.2", 80.2, "1.5", 1.5, bold=True), Cell("-1.0", -1.0, bold=True)))


def test_markdown() -> None:
    assert to_markdown(BOLD).splitlines() == [
        "**T**",
        "",
        "| name | without: base | with: base |",
        "| --- | ---: | ---: |",
        "| x | **80.2** ± 1.5 | **-1.0** |",
        "",
        "- a note",
    ]
    assert r"50% of R&D\_{x} \<b>$5 #1 ~ ^ \\ \| \*a\* \`c\` é a_b" in to_markdown(SAMPLE)


def test_csv_and_json_have_full_precision_and_deviations_of_their_own() -> None:
    heads = ["name", "without: base", "without: base ±", "with: base"]
    values = [NASTY, 80.25, 1.5, 1.0 - 3.4]
    assert list(csv.reader(io.StringIO(to_csv(SAMPLE)))) == [heads, list(map(str, values))]
    (content,) = json.loads(to_json([SAMPLE]))
    assert content["rows"] == [dict(zip(heads, values, strict=True))]
    assert content["key"] == "key"


def test_latex() -> None:
    lines = to_latex(BOLD).splitlines()
    assert r"\begin{tabular}{lrr}" in lines
    assert r" & \multicolumn{1}{c}{without} & \multicolumn{1}{c}{with} \\" in lines
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}" in lines
    assert r"x & \textbf{80.2} {\scriptsize $\pm$ 1.5} & \textbf{$-$1.0} \\" in lines
    rules = [r"\toprule", r"\midrule", r"\bottomrule"]
    assert [line for line in lines if line in rules] == rules
    escaped = (
        r"50\% of R\&D\_\{x\} \textless{}b\textgreater{}\$5 \#1 \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} \textbar{} *a* `c` é a\_b"
    )
    assert to_latex(SAMPLE).count(escaped) == 2
    assert r"80.2 {\scriptsize $\pm$ 1.5} & $-$2.4 \\" in to_latex(SAMPLE)


@given(st.text(), st.text())
def test_no_text_leaves_its_cell(first: str, second: str) -> None:
    one = table((first, second, None), title=first)
    lines = [line for line in to_markdown(one).split("\n") if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {4}
    body = to_latex(one)
    assert body.count("\n\\end{table}") == 1
    if not set(first + second) & set(LATEX):
        assert body.count("\\\\\n") == 3
