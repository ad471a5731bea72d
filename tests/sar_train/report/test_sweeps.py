"""Tables of one's own sweeps."""

from __future__ import annotations

from pathlib import Path

from support.results import result, write

from sar_train.report import sweeps
from sar_train.report.results import read


def test_settings_in_which_rows_differ_are_columns(tmp_path: Path) -> None:
    write(tmp_path / "ablation", result("none", protocol="custom", base=90.0, new=50.0))
    for weight, new in ((0.1, 60.0), (1.0, 64.0)):
        for seed in (1, 2):
            one = result("w+sar", protocol="custom", seed=seed, new=new + seed, settings={"weight": weight})
            write(tmp_path / "ablation", one | {"name": f"w{weight}"})
    (found,) = sweeps.tables(read(tmp_path))
    assert [c.name for c in found.columns] == [
        "run",
        "method",
        "sar",
        "sar.weight",
        "base",
        "new",
        "H",
        "relations",
        "seeds",
    ]
    assert [[c.text for c in row] for row in found.rows][1:] == [
        ["none", "none", "no", "", "90.0", "50.0", "64.3", "0.50", "1"],
        ["w0.1", "w", "yes", "0.1", "80.0", "61.5", "69.5", "0.50", "1, 2"],
        ["w1.0", "w", "yes", "1.0", "80.0", "65.5", "72.0", "0.50", "1, 2"],
    ]
    assert found.title.startswith("ablation: caltech101")
    bold = [
        (row[0].text, column.name)
        for row in found.rows
        for cell, column in zip(row, found.columns, strict=True)
        if cell.bold
    ]
    assert bold == [("none", "base"), ("w1.0", "new"), ("w1.0", "H")]


def test_too_many_settings_are_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        many = {f"option{i}": f"{name}{i}" for i in range(20)}
        write(tmp_path, result(name, protocol="custom", settings={**many, "method": "coop"}))
    (found,) = sweeps.tables(read(tmp_path))
    assert [c.name for c in found.columns] == ["run", "base", "new", "H", "relations", "seeds"]


def test_folders_are_tables_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder, result(protocol="custom"))
    assert [table.key for table in sweeps.tables(read(tmp_path))] == [
        "custom-a-caltech101-sar-mini",
        "custom-b-caltech101-sar-mini",
    ]


def test_values_as_people_write_them() -> None:
    assert [sweeps.shown(v) for v in (True, False, None, "", 0.3, "x")] == ["yes", "no", "", '""', "0.3", "x"]


def test_zero_shot_that_differs_between_runs_is_told(tmp_path: Path) -> None:
    write(tmp_path, result("a", protocol="custom", zero_shot=(60.0, 50.0)))
    assert len(sweeps.tables(read(tmp_path))[0].notes) == 2
    write(tmp_path, result("b", protocol="custom", zero_shot=(80.0, 70.0), settings={"base_classes": "deal:2"}))
    assert "differ by up to 20.0" in sweeps.tables(read(tmp_path))[0].notes[2]
