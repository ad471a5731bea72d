"""Averages as the field reports them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.results import result, write

from sar_train.report.results import read
from sar_train.report.scores import Mean, Scene, Score, grouped, mean, over_datasets, pairs, score
from sar_train.report.wording import slug

PERCENT = st.floats(0, 100)


def values(score: Score) -> tuple[float | None, float | None, float | None]:
    """Return base, new and harmonic mean."""
    return score.base and score.base.value, score.new and score.new.value, score.both


def test_mean_and_sample_deviation() -> None:
    found = mean([80.0, 82.0, 87.0, None])
    assert found is not None
    assert found.value == 83.0
    assert found.sd == pytest.approx(13**0.5)
    assert mean([5.0]) == Mean(5.0, None)
    assert mean([None]) is None


def test_the_harmonic_mean_is_of_the_averages(tmp_path: Path) -> None:
    for seed, base, new in ((1, 90.0, 30.0), (2, 70.0, 50.0)):
        write(tmp_path, result(seed=seed, base=base, new=new))
    found = score(read(tmp_path).runs)
    assert values(found) == (80.0, 40.0, pytest.approx(2 * 80 * 40 / 120))
    assert found.seeds == (1, 2)


def test_over_datasets_each_counts_once_whatever_its_seeds() -> None:
    many = Score(Mean(90.0, 1.0), Mean(30.0, 1.0), (1, 2, 3))
    one = Score(Mean(70.0, None), Mean(50.0, None), (1,))
    assert values(over_datasets([many, one])) == (80.0, 40.0, pytest.approx(160 / 3))


def test_without_new_classes_there_is_no_harmonic_mean() -> None:
    assert values(Score(Mean(90.0, None), None)) == (90.0, None, None)


@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=1, max_size=6))
def test_the_harmonic_mean_lies_between_and_below_the_arithmetic_one(pairs_of: list[tuple[float, float]]) -> None:
    base, new, both = values(Score(mean(b for b, _ in pairs_of), mean(n for _, n in pairs_of)))
    assert base is not None
    assert new is not None
    assert both is not None
    assert min(base, new) - 1e-9 <= both <= (base + new) / 2 + 1e-9


def test_scenes_and_rows_are_in_the_order_of_the_field(tmp_path: Path) -> None:
    for dataset in ("zebra", "dtd", "caltech101"):
        for name in ("mine", "coop+sar", "kgcoop", "coop"):
            write(tmp_path, result(name, dataset=dataset))
    groups = grouped(read(tmp_path).runs)
    assert [scene.dataset for scene in groups] == ["caltech101", "dtd", "zebra"]
    assert list(next(iter(groups.values()))) == ["coop", "coop+sar", "kgcoop", "mine"]


def test_pairs_where_a_side_is_missing_or_has_several_settings(tmp_path: Path) -> None:
    contents = [
        result(),
        result("coop+sar"),
        result("coop+sar", settings={"weight": 1.0}),
        result("kgcoop"),
        result("tcp+sar"),
    ]
    for number, content in enumerate(contents):
        write(tmp_path, content, name=f"{number}.json")
    (rows,) = grouped(read(tmp_path).runs).values()
    found = {name: (len(without), len(with_sar)) for name, (without, with_sar) in pairs(rows).items()}
    assert found == {
        "coop (sar.weight=0.3)": (1, 1),
        "coop (sar.weight=1.0)": (1, 1),
        "kgcoop": (1, 0),
        "tcp": (0, 1),
    }


def test_names_of_files() -> None:
    assert slug("PACS/art, 16 shots (ViT-B/16)") == "pacs-art--16-shots--vit-b-16"
    assert Scene("b", "d", 0).slug == "d-allshots-b"
    assert str(Scene("b", "d", 1)) == "d, 1 shot, b"
