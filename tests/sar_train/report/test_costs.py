"""Costs, novel names and set-up checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.results import accuracies, result, write
from support.results import tables as all_tables

from sar_train.report.page import write as write_page
from sar_train.report.results import read
from sar_train.report.table import Table


def tables(folder: Path) -> dict[str, Table]:
    return {table.key: table for table in all_tables(folder, "costs", "novel", "set-up")}


def html(folder: Path, key: str) -> str:
    """Return a table as the page shows it."""
    text = write_page(read(folder), folder / "report", title="x", command="x").read_text(encoding="utf-8")
    return text.partition(f'<table id="table-{key}"')[2].partition("</table>")[0]


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_seconds_are_medians_by_epoch_and_memory_is_the_peak(tmp_path: Path) -> None:
    for seed, seconds, peak in ((1, 20.0, 600.0), (2, 30.0, 640.0), (3, 100.0, 620.0)):
        write(tmp_path, result(seed=seed, timing={"train_seconds": seconds}, peak_memory_mib=peak))
    write(tmp_path, result("coop+sar", timing={"train_seconds": 45.0}, peak_memory_mib=650.0))
    found = tables(tmp_path)["costs"]
    assert texts(found) == [["CoOp", "3", "4.5", "1.50", "640", "650", "+10"]]
    assert found.title == "What a run costs: base-to-new, caltech101, 16 shots, sar-mini"


def test_what_is_not_known_is_empty(tmp_path: Path) -> None:
    write(tmp_path, result(timing={}, peak_memory_mib=None))
    assert texts(tables(tmp_path)["costs"]) == [["CoOp", "", "", "", "", "", ""]]


def test_runs_of_a_sweep_stand_on_the_side_that_their_settings_say(tmp_path: Path) -> None:
    write(tmp_path, result("weighted", protocol="custom", settings={"sar": True}))
    assert texts(tables(tmp_path)["costs"])[0][1:3] == ["", "2"]


def test_novel_names(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write(tmp_path, result("coop+sar", seed=seed))
    novel: dict[str, Any] = {"source": "/home/me/names.txt", "count": 50, "overlap": 0}
    write(tmp_path, result("kgcoop+sar", novel=novel))
    assert texts(tables(tmp_path)["novel-names"]) == [
        ["caltech101", "CoOp + SAR", "wordnet", "400", "1 to 3", "3"],
        ["caltech101", "KgCoOp + SAR", "names.txt", "50", "0", "1"],
    ]


def test_set_up_checks(tmp_path: Path) -> None:
    good = {"expected": accuracies(60.0, 58.0), "source": "here", "difference": 0.0, "ok": True}
    write(tmp_path, result(zero_shot_check=good))
    write(tmp_path, result(seed=2, zero_shot_check=good))
    bad = {"expected": accuracies(70.0, 58.0), "source": "there", "difference": -10.0, "ok": False}
    write(tmp_path, result(dataset="dtd", zero_shot_check=bad))
    assert texts(tables(tmp_path)["set-up"]) == [
        ["caltech101", "sar-mini", "60.00", "58.00", "60.00", "58.00", "as expected", "here"],
        ["dtd", "sar-mini", "70.00", "58.00", "60.00", "58.00", "too low", "there"],
    ]


def test_only_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, result())
    assert list(tables(tmp_path)) == ["costs"]


def test_only_a_zero_shot_accuracy_that_is_too_low_has_the_colour_of_a_warning(tmp_path: Path) -> None:
    for dataset, ok in (("caltech101", True), ("dtd", False)):
        check = {"expected": accuracies(60.0, 58.0), "source": "here", "difference": 0.0, "ok": ok}
        write(tmp_path, result(dataset=dataset, zero_shot_check=check, history=[]))
    good, bad = html(tmp_path, "set-up").split("<tbody>")[1].splitlines()[1:3]
    assert '<td class="text start">as expected</td>' in good
    assert "down" not in good
    assert "<strong>" not in good
    assert '<td class="text start down"><strong>too low</strong></td>' in bad
    assert bad.count("down") == bad.count("<strong>") == 1


@pytest.mark.parametrize("with_sar", [550.0, 600.0, 650.0])
def test_memory_is_no_gain_or_loss(tmp_path: Path, with_sar: float) -> None:
    write(tmp_path, result(peak_memory_mib=600.0, history=[]))
    write(tmp_path, result("coop+sar", peak_memory_mib=with_sar, history=[]))
    text = html(tmp_path, "costs")
    assert not re.search(r'class="[^"]*\b(up|down)\b', text)
    assert f">{'+50' if with_sar > 600 else '−50' if with_sar < 600 else '0'}</td>" in text
