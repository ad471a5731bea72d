"""Tables of datasets that prompts were not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.results import result, write

from sar_train.report import targets
from sar_train.report.results import read


def judged(**accuracies: float) -> dict[str, Any]:
    return {
        name: {"accuracy": value, "zero_shot": 50.0, "classes": 3, "photos": 9} for name, value in accuracies.items()
    }


@pytest.mark.parametrize("protocol", ["cross-dataset", "domain-generalisation"])
def test_the_average_is_over_targets_and_seeds(tmp_path: Path, protocol: str) -> None:
    common: dict[str, Any] = {"protocol": protocol, "new": None, "dataset": "imagenet"}
    write(tmp_path, result(seed=1, base=70.0, targets=judged(dtd=40.0, pets=80.0), **common))
    write(tmp_path, result(seed=2, base=72.0, targets=judged(dtd=44.0, pets=82.0), **common))
    write(tmp_path, result("coop+sar", base=70.0, targets=judged(dtd=45.0, pets=85.0), **common))
    found, theirs = targets.tables(read(tmp_path))
    assert [column.name for column in found.columns] == ["method", "imagenet", "dtd", "pets", "average"]
    assert [[c.text for c in row] for row in found.rows] == [
        ["zero-shot", "60.0", "50.0", "50.0", "50.0"],
        ["CoOp", "71.0", "42.0", "81.0", "61.5"],
        ["CoOp + SAR", "70.0", "45.0", "85.0", "65.0"],
        ["difference", "-1.0", "+3.0", "+4.0", "+3.5"],
    ]
    assert found.rows[1][2].sd == "2.8"
    assert [[cell.bold for cell in row] for row in found.rows] == [
        [False, False, True, False, False],
        [False, True, False, False, False],
        [False, False, False, True, True],
        [False] * 5,
    ]
    assert found.rows[0][2].sd == ""
    assert theirs.rows[0][0].text == "CoOp"
    assert theirs.rows[0][2].text == {"cross-dataset": "63.88", "domain-generalisation": "59.28"}[protocol]


def test_an_average_with_a_target_missing_is_left_out(tmp_path: Path) -> None:
    common: dict[str, Any] = {"protocol": "cross-dataset", "new": None}
    write(tmp_path, result(targets=judged(dtd=40.0, pets=80.0), **common))
    write(tmp_path, result("kgcoop", targets=judged(dtd=40.0), **common))
    (found,) = targets.tables(read(tmp_path))  # the published figures are of prompts from ImageNet
    rows = {row[0].text: [c.text for c in row] for row in found.rows}
    assert rows["CoOp"][-1] == "60.0"
    assert rows["KgCoOp"][-2:] == ["", ""]


def test_what_is_particular_about_tcp_is_told(tmp_path: Path) -> None:
    write(tmp_path, result("tcp", protocol="cross-dataset", new=None, targets=judged(dtd=40.0)))
    assert targets.TCP in targets.tables(read(tmp_path))[0].notes


def test_nothing_without_such_runs(tmp_path: Path) -> None:
    write(tmp_path, result())
    assert targets.tables(read(tmp_path)) == []


def test_a_difference_is_never_the_best_of_its_column(tmp_path: Path) -> None:
    common: dict[str, Any] = {"protocol": "cross-dataset", "new": None}
    for name, value in (("coop", 0.0), ("coop+sar", 60.0)):
        write(tmp_path, result(name, targets=judged(dtd=value), **common))
    rows = targets.tables(read(tmp_path))[0].rows
    assert [(row[0].text, row[2].text) for row in rows][2:] == [("CoOp + SAR", "60.0"), ("difference", "+60.0")]
    assert [row[2].bold for row in rows] == [False, False, True, False]


@pytest.mark.parametrize(("seeds", "said"), [((1, 2), True), ((1,), False)])
def test_seeds_that_differ_between_the_sides_are_told(tmp_path: Path, seeds: tuple[int, ...], said: bool) -> None:
    common: dict[str, Any] = {"protocol": "cross-dataset", "new": None, "targets": judged(dtd=40.0)}
    write(tmp_path, result("coop+sar", **common))
    for seed in seeds:
        write(tmp_path, result(seed=seed, **common))
    (found,) = targets.tables(read(tmp_path))
    assert ("CoOp: the two sides are of different seeds" in found.notes) == said


def test_zero_shot_on_the_source_counts_every_seed_once(tmp_path: Path) -> None:
    common: dict[str, Any] = {"protocol": "cross-dataset", "new": None, "targets": judged(dtd=40.0)}
    for name in ("coop", "kgcoop", "tcp"):
        write(tmp_path, result(name, zero_shot=(60.0, None), **common))
    write(tmp_path, result(seed=2, zero_shot=(70.0, None), **common))
    (found,) = targets.tables(read(tmp_path))
    assert (found.rows[0][0].text, found.rows[0][1].value) == ("zero-shot", 65.0)
