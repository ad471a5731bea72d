"""How values are shown, and the renderings of a table."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_train.report.scores import Mean
from sar_train.report.table import (
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
    to_text,
)


def shown(value: Value, digits: int = 1) -> Cell:
    return make_table("k", "s", "t", [Column("a", digits=digits)], [(value,)]).rows[0][0]


def bold(rows: list[tuple[Value, ...]], *rivals: str, apart: tuple[int, ...] = ()) -> list[list[bool]]:
    columns = [Column(f"c{number}", rivals=name) for number, name in enumerate(rivals)]
    return [[cell.bold for cell in row] for row in make_table("k", "s", "t", columns, rows, apart=apart).rows]


def test_numbers_are_rounded_and_kept() -> None:
    assert shown(80.25) == Cell("80.2", 80.25)
    assert shown(Mean(80.25, 1.26)) == Cell("80.2", 80.25, "1.3", 1.26)
    assert shown(0.856, 2) == Cell("0.86", 0.856)
    assert shown(None) == shown("") == Cell()


@pytest.mark.parametrize(
    ("after", "before", "text", "tone"),
    [(60.0, 57.6, "+2.4", "up"), (57.6, 60.0, "-2.4", "down"), (60.0, 60.04, "0.0", ""), (60.04, 60.0, "0.0", "")],
)
def test_differences_have_a_sign_unless_they_are_none(after: float, before: float, text: str, tone: str) -> None:
    cell = shown(Difference(after, Mean(before, None)))
    assert (cell.text, cell.tone) == (text, tone)
    assert cell.value == pytest.approx(after - before)


def test_a_difference_may_be_neither_good_nor_bad_or_unknown() -> None:
    assert shown(Difference(2.0, 1.0, neutral=True)) == Cell("+1.0", 1.0)
    assert shown(Difference(None, 1.0)) == Cell()
    assert shown(Difference(2.0, 1.0, sd=0.25)).sd == "0.2"


@given(st.floats(-1000, 1000), st.integers(0, 3))
def test_there_is_no_negative_zero(value: float, digits: int) -> None:
    assert not (text := shown(value, digits).text).startswith("-") or float(text) != 0


def test_the_best_is_bold_and_ties_as_they_are_shown_are_too() -> None:
    assert bold([(80.01,), (80.04,), (70.0,), ("99.0",)], "x") == [[True], [True], [False], [False]]


def test_columns_compete_with_their_rivals_and_rows_can_be_left_out() -> None:
    assert bold([(99.0, 1.0), (60.0, 70.0)], "x", "x", apart=(0,)) == [[False, False], [False, True]]
    assert bold([(99.0, 1.0), (60.0, 70.0)], "x", "y") == [[True, False], [False, True]]
    assert bold([(99.0,), (60.0,)], "") == [[False], [False]]


def test_a_single_number_is_not_the_best_of_anything() -> None:
    assert bold([(1.0,)], "x") == [[False]]


def test_columns_that_no_row_has_a_value_for_go_with_their_note() -> None:
    columns = [Column("a"), Column("b", note="about b"), Column("c", note="about c"), Column("d", note="about b")]
    table = make_table("k", "s", "t", columns, [(1.0, None, None, None), (2.0, 3.0, "", None)], ["about b", "about c"])
    assert [column.name for column in table.columns] == ["a", "b", "d"]
    assert table.notes == ("about b",)


def test_rows_fit_their_columns() -> None:
    with pytest.raises(ValueError, match="zip"):
        make_table("k", "s", "t", [Column("a")], [(1.0, 2.0)])


NASTY = r"50% of R&D_{x} <b>$5 #1 ~ ^ \ | *a* `c` é"


def table(*rows: tuple[Value, ...], title: str = "T") -> Table:
    columns = (Column("name", text=True), Column("base", "without"), Column("base", "with"))
    return make_table("key", "section", title, columns, rows, ("a note",))


SAMPLE = table((NASTY, Mean(80.25, 1.5), Difference(1.0, 3.4)), title=NASTY)
BOLD = table(("x", Cell("80.2", 80.2, "1.5", 1.5, bold=True), Cell("-1.0", -1.0, bold=True)))


def test_markdown() -> None:
    text = to_markdown(BOLD)
    assert text.splitlines()[2:5] == [
        "| name | without: base | with: base |",
        "| --- | ---: | ---: |",
        "| x | **80.2** ± 1.5 | **-1.0** |",
    ]
    assert "- a note" in text


def test_markdown_rows_have_as_many_cells_as_the_head() -> None:
    lines = [line for line in to_markdown(SAMPLE).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert r"\<b>" in lines[-1]


def test_csv_has_full_precision_and_deviations_of_their_own() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(SAMPLE))))
    assert rows[0] == ["name", "without: base", "without: base sd", "with: base"]
    assert rows[1] == [NASTY, "80.25", "1.5", str(1.0 - 3.4)]


def test_json_is_a_list_of_rows_by_column() -> None:
    (found,) = json.loads(to_json([SAMPLE]))
    assert found["rows"] == [{"name": NASTY, "without: base": 80.25, "without: base sd": 1.5, "with: base": 1.0 - 3.4}]
    assert found["key"] == "key"


def test_latex_is_escaped() -> None:
    text = to_latex(SAMPLE)
    escaped = (
        r"50\% of R\&D\_\{x\} \textless{}b\textgreater{}\$5 \#1 \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} \textbar{} *a* `c` é"
    )
    assert text.count(escaped) == 2
    assert r"80.2 {\scriptsize $\pm$ 1.5} & $-$2.4 \\" in text


def test_latex_heads_and_rules() -> None:
    lines = to_latex(BOLD).splitlines()
    assert r"\begin{tabular}{lrr}" in lines
    assert r" & \multicolumn{1}{c}{without} & \multicolumn{1}{c}{with} \\" in lines
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}" in lines
    assert r"x & \textbf{80.2} {\scriptsize $\pm$ 1.5} & \textbf{$-$1.0} \\" in lines
    assert [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")] == [
        r"\toprule", r"\midrule", r"\bottomrule",
    ]  # fmt: skip


@given(st.text(), st.text())
def test_no_text_leaves_its_place(first: str, second: str) -> None:
    one = table((first, second, None), title=first)
    lines = [line for line in to_markdown(one).split("\n") if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {4}
    body = to_latex(one)
    assert body.count("\n\\end{table}") == 1
    if not set(first + second) & set(LATEX):
        assert body.count("\\\\\n") == 3


@pytest.mark.parametrize("text", ["a_b", "_a_", "snake_case_name"])
def test_underscores_inside_words_stay(text: str) -> None:
    shown = to_markdown(table((text, None, None)))
    assert text.strip("_") in shown.replace("\\_", "_")
    assert ("\\_" in shown) == text.startswith("_")


WIDE = make_table(
    "key",
    "section",
    "A title that is longer than a line may be, " * 4,
    [Column("method", text=True), *(Column(name, side) for side in ("without SAR", "with SAR") for name in "abcdefgh")],
    [("a long name of a run, with settings and more settings and more", *(Mean(80.25, 1.5) for _ in range(16)))],
    ["Bold: the best " + "and a long note " * 20],
)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_text_keeps_within_its_lines_and_shows_every_figure(width: int) -> None:
    text = to_text(WIDE, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("80.2 ± 1.5") == 16
    assert [line.split() for line in text.splitlines() if line.strip() in ("without SAR", "with SAR")] or width >= 100
    assert "*: the best" in text


def test_text_of_a_narrow_table() -> None:
    rows = [("x", Cell("80.2", 80.2, "1.5", 1.5, bold=True), Cell("-1.0", -1.0)), ("a long name", 1.0, None)]
    assert to_text(table(*rows)).splitlines() == [
        "T",
        "",
        "             without      with",
        "name                base  base",
        "------------------------------",
        "x            *80.2 ± 1.5  -1.0",
        "a long name          1.0",
        "- a note",
    ]


def test_groups_of_columns_stay_together_where_they_fit() -> None:
    heads = [line.split() for line in to_text(WIDE, 140).splitlines() if line.startswith("method")]
    assert heads == [["method", *"abcdefgh"], ["method", *"abcdefgh"]]
