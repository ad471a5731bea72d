"""Tables of one ranking over base and new classes, against values computed by hand."""

from __future__ import annotations

from pathlib import Path

from support.results import open_measures, result, write

from sar_train.report import base_new, open_ranking, summary, sweeps
from sar_train.report.results import read
from sar_train.report.table import Table


def rows(table: Table) -> list[list[str]]:
    return [[("*" if c.bold else "") + c.text + (f" ± {c.sd}" if c.sd else "") for c in row] for row in table.rows]


def both_ways(folder: Path, dataset: str = "caltech101") -> None:
    for seed, shift in ((1, -1.0), (2, 1.0)):
        write(folder, result(seed=seed, dataset=dataset, open_=(70.0 + shift, 20.0 + shift)))
        write(folder, result("coop+sar", seed=seed, dataset=dataset, open_=(60.0 + shift, 60.0)))


def test_every_measure_has_its_column_over_images_and_over_classes(tmp_path: Path) -> None:
    both_ways(tmp_path)
    images, classes = open_ranking.tables(read(tmp_path))
    heads = ["method", "open base", "open new", "open H", "open accuracy", "AUROC", "OpenworldAUC", "AUSUC", "seeds"]
    assert [column.flat for column in images.columns] == heads
    # H: 2 * 50 * 40 / 90 = 44.4, 2 * 70 * 20 / 90 = 31.1; OpenworldAUC in the sample is base times new
    assert rows(images) == [
        ["zero-shot", "50.0", "40.0", "44.4", "45.0", "*0.900", "0.200", "*0.600", ""],
        ["CoOp", "*70.0 ± 1.4", "20.0 ± 1.4", "31.1", "45.0 ± 1.4", "*0.900 ± 0.000", "0.140 ± 0.013", "*0.600 ± 0.000",
         "1, 2"],
        ["CoOp + SAR", "60.0 ± 1.4", "*60.0 ± 0.0", "*60.0", "*60.0 ± 0.7", "*0.900 ± 0.000", "*0.360 ± 0.008",
         "*0.600 ± 0.000", "1, 2"],
    ]  # fmt: skip
    assert rows(classes)[0][:3] == ["zero-shot", "51.0", "41.0"]
    assert (images.folded, classes.folded) == (False, True)


def test_other_ways_to_answer_have_rows(tmp_path: Path) -> None:
    run = result("dept", open_=(70.0, 30.0), other_metrics={"text-branch": {"base_accuracy": 75.0}})
    run["open"]["other_metrics"] = {"text-branch": open_measures(65.0, 35.0)}
    write(tmp_path, run)
    images, _ = open_ranking.tables(read(tmp_path))
    assert [row[:3] for row in rows(images)][1:] == [
        ["DePT on CoOp", "*70.0", "30.0"],
        ["DePT on CoOp, text branch", "65.0", "35.0"],
    ]


def test_open_h_stands_beside_base_new_and_h(tmp_path: Path) -> None:
    both_ways(tmp_path)
    both_ways(tmp_path, "dtd")
    average, first, *_ = base_new.tables(read(tmp_path))
    for table in (average, first):
        assert [column.name for column in table.columns[1:5]] == ["base", "new", "H", "open H"]
        assert [row[4] for row in rows(table) if row[0] != "linear probe (base only)"] == ["44.4", "31.1"]
        assert rows(table)[-1][9] == "*60.0"
        assert rows(table)[-1][-1] == "+28.9"
        assert any(note.startswith("Open H") for note in table.notes)


def test_results_made_before_are_read_and_have_no_such_columns(tmp_path: Path) -> None:
    old = result()
    del old["open"]
    write(tmp_path, old)
    write(tmp_path, result("w", protocol="custom") | {"open": None})
    results = read(tmp_path)
    assert open_ranking.tables(results) == []
    for table in (*base_new.tables(results), *sweeps.tables(results)):
        assert not any("open" in column.flat for column in table.columns)
    assert not any("In one ranking" in line for _, lines in summary.claims(results) for line in lines)


def test_a_side_of_which_a_run_was_not_measured_has_no_open_mean(tmp_path: Path) -> None:
    both_ways(tmp_path)
    write(tmp_path, result(seed=3))
    table = base_new.tables(read(tmp_path))[0]
    assert (rows(table)[-1][4], rows(table)[-1][9], rows(table)[-1][-1]) == ("", "*60.0", "")


def test_sweeps_show_it_too(tmp_path: Path) -> None:
    write(tmp_path, result("w", protocol="custom", open_=(70.0, 20.0)))
    (table,) = sweeps.tables(read(tmp_path))
    shown = dict(zip([column.name for column in table.columns], rows(table)[-1], strict=True))
    assert shown["open H"] == "31.1"


def test_the_summary_says_what_sar_did(tmp_path: Path) -> None:
    both_ways(tmp_path)
    ((_, lines),) = summary.claims(read(tmp_path))
    said = "In one ranking over base and new classes, SAR raised the harmonic mean for 1 of 1 method (CoOp +28.9)."
    assert said in lines
