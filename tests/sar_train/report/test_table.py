"""Cells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_train.report.scores import Mean
from sar_train.report.table import Cell, Column, Table, averaged, difference, embolden, number, words


def test_numbers_are_rounded_and_kept() -> None:
    assert number(80.25, 1) == Cell("80.2", 80.25)
    assert averaged(Mean(80.25, 1.26, 3)) == Cell("80.2", 80.25, "1.3", 1.26)
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
    with pytest.raises(ValueError, match="needs 1 cells"):
        Table("k", "s", "t", (Column("a"),), ((Cell(), Cell()),))
