"""Cells."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_train.report.scores import Mean
from sar_train.report.table import (
    LATEX,
    Cell,
    Column,
    Table,
    averaged,
    difference,
    embolden,
    number,
    to_csv,
    to_html,
    to_json,
    to_latex,
    to_markdown,
    words,
)


def test_numbers_are_rounded_and_kept() -> None:
    assert number(80.25, 1) == Cell("80.2", 80.25)
    assert averaged(Mean(80.25, 1.26)) == Cell("80.2", 80.25, "1.3", 1.26)
    assert number(None) == averaged(None) == Cell()


@pytest.mark.parametrize(
    ("after", "before", "text", "tone"),
    [(60.0, 57.6, "+2.4", "up"), (57.6, 60.0, "-2.4", "down"), (60.0, 60.04, "0.0", ""), (60.04, 60.0, "0.0", "")],
)
def test_differences_have_a_sign_unless_they_are_none(after: float, before: float, text: str, tone: str) -> None:
    found = difference(after, before)
    assert (found.text, found.tone) == (text, tone)
    assert found.value == pytest.approx(after - before)


def test_a_difference_may_be_better_downwards_or_neither() -> None:
    assert difference(2.0, 1.0, good=-1).tone == "down"
    assert difference(2.0, 1.0, good=0).tone == ""
    assert difference(None, 1.0) == Cell()


@given(st.floats(-1000, 1000), st.integers(0, 3))
def test_there_is_no_negative_zero(value: float, digits: int) -> None:
    assert not (text := number(value, digits).text).startswith("-") or float(text) != 0


def test_the_best_is_bold_and_ties_as_they_are_shown_are_too() -> None:
    rows = embolden([(number(80.01),), (number(80.04),), (number(70.0),), (words("99.0"),)], [(0,)])
    assert [row[0].bold for row in rows] == [True, True, False, False]


def test_columns_of_a_group_compete_and_rows_can_be_left_out() -> None:
    rows = embolden([(number(99.0), number(1.0)), (number(60.0), number(70.0))], [(0, 1)], leave=[0])
    assert [[cell.bold for cell in row] for row in rows] == [[False, False], [False, True]]


def test_a_single_number_is_not_the_best_of_anything() -> None:
    assert not embolden([(number(1.0),)], [(0,)])[0][0].bold


def test_rows_fit_their_columns() -> None:
    with pytest.raises(ValueError, match="1 cells"):
        Table("k", "s", "t", (Column("a"),), ((Cell(), Cell()),))


NASTY = r"50% of R&D_{x} <b>$5 #1 ~ ^ \ | *a* `c` é"


def table(*rows: tuple[Cell, ...], title: str = "T") -> Table:
    columns = (Column("name", text=True), Column("base", "without"), Column("base", "with"))
    return Table("key", "section", title, columns, rows, ("a note",))


SAMPLE = table((words(NASTY), number(80.25, sd=1.5), difference(1.0, 3.4)), title=NASTY)
BOLD = table((words("x"), Cell("80.2", 80.2, "1.5", 1.5, bold=True), Cell("-1.0", -1.0, bold=True)))


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


class Cells(HTMLParser):
    """The texts of cells, and the names of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_html_is_escaped() -> None:
    found = Cells(to_html(SAMPLE))
    assert "b" not in found.names
    assert NASTY in [cell.strip() for cell in found.cells]


def test_html_heads_bold_and_tones() -> None:
    text = to_html(BOLD)
    assert '<th scope="colgroup" colspan="1">without</th>' in text
    assert '<td class="start"><strong>−1.0</strong></td>' in text
    assert '<th scope="row" class="text">x</th>' in text
    assert '<td class="start down">−2.4</td>' in to_html(SAMPLE)


@given(st.text(), st.text())
def test_no_text_leaves_its_place(first: str, second: str) -> None:
    one = table((words(first), words(second), Cell()), title=first)
    assert set(Cells(to_html(one)).names) <= {"table", "thead", "tbody", "tr", "th", "td"}
    lines = [line for line in to_markdown(one).split("\n") if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {4}
    body = to_latex(one)
    assert body.count("\n\\end{table}") == 1
    if not set(first + second) & set(LATEX):
        assert body.count("\\\\\n") == 3


@pytest.mark.parametrize("text", ["a_b", "_a_", "snake_case_name"])
def test_underscores_inside_words_stay(text: str) -> None:
    shown = to_markdown(table((words(text), Cell(), Cell())))
    assert text.strip("_") in shown.replace("\\_", "_")
    assert ("\\_" in shown) == text.startswith("_")
