"""Averages as the field reports them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.results import result, write

from sar_train.report.results import read
from sar_train.report.scores import Mean, Score, grouped, mean, over_datasets, score, zero_shot


def values(score: Score) -> tuple[float | None, float | None, float | None]:
    """Return base, new and harmonic mean."""
    return score.base and score.base.value, score.new and score.new.value, score.both


def test_mean_and_sample_deviation() -> None:
    assert mean([80.0, 82.0, 87.0, None]) == Mean(83.0, pytest.approx(13**0.5))  # type: ignore[arg-type]
    assert mean([5.0]) == Mean(5.0, None)
    assert mean([None]) is None


def test_the_harmonic_mean_is_of_the_averages_and_each_dataset_counts_once(tmp_path: Path) -> None:
    for seed, base, new in ((1, 90.0, 30.0), (2, 70.0, 50.0)):
        write(tmp_path, result(seed=seed, base=base, new=new))
    scored = score(read(tmp_path).runs)
    assert values(scored) == (80.0, 40.0, pytest.approx(2 * 80 * 40 / 120))
    assert scored.seeds == (1, 2)
    average = over_datasets([scored, Score(Mean(60.0, None), Mean(60.0, None), (1,))])
    assert values(average) == (70.0, 50.0, pytest.approx(7000 / 120))
    assert average.base == Mean(70.0, None)
    assert values(Score(Mean(90.0, None), None)) == (90.0, None, None)


def test_zero_shot_is_averaged_only_where_seeds_draw_the_test_photos(tmp_path: Path) -> None:
    for seed, accuracies in ((1, (60.0, 50.0)), (2, (62.0, 54.0))):
        for name in ("coop", "coop+sar"):
            write(tmp_path, result(name, seed=seed, zero_shot=accuracies))
    runs = read(tmp_path).runs
    drawn, constant = zero_shot(runs), zero_shot([run for run in runs if run.seed == 1])
    assert (values(drawn)[:2], drawn.seeds) == ((61.0, 52.0), (1, 2))
    assert (constant.base, constant.seeds) == (Mean(60.0, None), ())


def test_scenes_and_rows_are_in_the_order_of_the_field(tmp_path: Path) -> None:
    for dataset in ("zebra", "dtd", "caltech101"):
        for name in ("mine", "coop+sar", "kgcoop", "coop"):
            write(tmp_path, result(name, dataset=dataset))
    scenes = grouped(read(tmp_path).runs)
    assert [scene.dataset for scene in scenes] == ["caltech101", "dtd", "zebra"]
    assert list(scenes[0].rows) == ["coop", "coop+sar", "kgcoop", "mine"]


def test_methods_of_which_a_side_is_missing_or_has_several_settings(tmp_path: Path) -> None:
    contents = [
        result(),
        result("coop+sar"),
        result("coop+sar", settings={"weight": 1.0}),
        result("kgcoop"),
        result("tcp+sar"),
    ]
    for number, content in enumerate(contents):
        write(tmp_path, content, name=f"{number}.json")
    (scene,) = grouped(read(tmp_path).runs)
    assert {name: (len(without), len(with_sar)) for name, (without, with_sar) in scene.methods.items()} == {
        "coop (sar.weight=0.3)": (1, 1),
        "coop (sar.weight=1.0)": (1, 1),
        "kgcoop": (1, 0),
        "tcp": (0, 1),
    }
