"""The reports in the documentation are what the code makes of the committed results, to the last digit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sar_train.report.page import DRAWN, html
from sar_train.report.results import ResultSet, read
from sar_train.report.table import FORMATS, to_text
from sar_train.report.tables import all_tables, closing_tables

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "experiments" / "results"
REPORTS = {
    "default": ("base-to-new", "Base to new on Caltech101"),
    "few-shot": ("few-shot", "Few-shot on Caltech101"),
    "pacs": ("pacs", "From photos to cartoons and sketches"),
}


@pytest.fixture(scope="module", params=REPORTS)
def committed(request: pytest.FixtureRequest) -> tuple[ResultSet, Path, str, str]:
    """Return results with the folder of their report, its title and the name of the results."""
    folder, title = REPORTS[request.param]
    return read(RESULTS / request.param), ROOT / "docs" / "reports" / folder, title, request.param


def test_tables(committed: tuple[ResultSet, Path, str, str]) -> None:
    results, folder, *_ = committed
    made = {f"{t.key}.{ending}": form(t) for t in all_tables(results) for ending, form in FORMATS.items()}
    assert sorted(made) == sorted(path.name for path in (folder / "tables").iterdir())
    for name, text in made.items():
        assert text == (folder / "tables" / name).read_text(encoding="utf-8"), name


def test_pages_apart_from_drawings(committed: tuple[ResultSet, Path, str, str]) -> None:
    results, folder, title, name = committed
    figures = {figure: "" for maker in DRAWN.values() for figure in maker(results)}
    page = html(results, all_tables(results), figures, title=title, command=f"sar-experiment report {name}")
    before = re.sub(r"<svg.*?</svg>", "", (folder / "index.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert page.splitlines() == before.splitlines()


@pytest.mark.parametrize("name", ["default", "few-shot", "pacs", "ruler"])
def test_closing_tables_fit_a_terminal(name: str) -> None:
    lines = [line for table in closing_tables(read(RESULTS / name)) for line in to_text(table).splitlines()]
    assert 60 < max(map(len, lines)) <= 100
