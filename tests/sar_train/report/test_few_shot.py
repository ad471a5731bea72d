"""Few-shot tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.results import result, write

from sar_train.report import few_shot
from sar_train.report.results import read

FEW: dict[str, Any] = {"protocol": "few-shot", "new": None, "zero_shot": (54.0, None)}


def test_by_number_of_shots(tmp_path: Path) -> None:
    for shots, base in ((16, 70.0), (2, 60.0)):
        for seed in (1, 2):
            write(tmp_path, result(shots=shots, seed=seed, base=base + seed, **FEW))
        write(tmp_path, result("coop+sar", shots=shots, seed=1, base=base + 3, **FEW))
    (found,) = few_shot.tables(read(tmp_path))
    assert [column.name for column in found.columns] == ["method", "2 shots", "16 shots"]
    shown = {row[0].text: [c.text + (f" ± {c.sd}" if c.sd else "") for c in row[1:]] for row in found.rows}
    assert shown == {
        "zero-shot": ["54.0", "54.0"],
        "linear probe": ["91.5 ± 0.7", "91.5 ± 0.7"],
        "CoOp": ["61.5 ± 0.7", "71.5 ± 0.7"],
        "CoOp + SAR": ["63.0", "73.0"],
        "difference": ["+1.5", "+1.5"],
    }
    assert [row[0].text for row in found.rows if row[1].bold] == ["CoOp + SAR"]


def test_missing_seeds_are_told(tmp_path: Path) -> None:
    write(tmp_path, result(shots=1, **FEW))
    write(tmp_path, result(shots=1, seed=2, **FEW))
    write(tmp_path, result(shots=4, **FEW))
    (found,) = few_shot.tables(read(tmp_path))
    assert "CoOp, seeds at 1 shot: 1, 2; 4 shots: 1" in found.notes


def test_a_number_of_shots_that_one_side_lacks_is_empty(tmp_path: Path) -> None:
    write(tmp_path, result(shots=1, **FEW))
    write(tmp_path, result("coop+sar", shots=0, **FEW))
    (found,) = few_shot.tables(read(tmp_path))
    assert [column.name for column in found.columns[1:]] == ["1 shot", "all photos"]
    assert [[c.text for c in row] for row in found.rows[2:]] == [["CoOp", "80.0", ""], ["CoOp + SAR", "", "80.0"]]


def test_seeds_that_differ_between_the_sides_are_told(tmp_path: Path) -> None:
    for shots in (1, 4):
        write(tmp_path, result("coop+sar", shots=shots, **FEW))
        for seed in (1, 2):
            write(tmp_path, result(shots=shots, seed=seed, **FEW))
    (found,) = few_shot.tables(read(tmp_path))
    assert found.notes.count("CoOp: the two sides are of different seeds") == 1
