"""The draws of CoOp, written out here with the global generator as CoOp uses it."""

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.photos import SHARED, needs_shared

from sar_train.data.dataset_lists import read_split
from sar_train.data.layouts import LAYOUTS
from sar_train.data.shots import base_new, few_shot, sample


def as_coop_does(train: list[tuple[str, int]], val: list[tuple[str, int]], shots: int, seed: int) -> list[list[str]]:
    state = random.getstate()
    random.seed(seed)
    drawn = []
    for items, count in ((train, shots), (val, min(shots, 4))):
        grouped = defaultdict(list)
        for item in items:
            grouped[item[1]].append(item)
        chosen = []
        for of_label in grouped.values():
            chosen += random.sample(of_label, count) if len(of_label) >= count else of_label
        drawn.append([path for path, _ in chosen])
    random.setstate(state)
    return drawn


@needs_shared
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 16, 40])
def test_draws_equal_coops(seed: int, shots: int) -> None:
    _, rows = read_split(SHARED / "caltech-101" / LAYOUTS["caltech101"].split_file)
    train, val = rows["train"], rows["val"]
    drawn = few_shot([y for _, y in train], [y for _, y in val], shots, seed)
    expected = as_coop_does(train, val, shots, seed)
    assert [train[i][0] for i in drawn.train] == expected[0]
    assert [val[i][0] for i in drawn.val] == expected[1]


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 6), st.integers(0, 99))
def test_sample_takes_min_of_shots_and_what_there_is(labels: list[int], shots: int, seed: int) -> None:
    rows = sample(labels, shots, random.Random(seed))
    assert len(set(rows)) == len(rows)
    taken = [labels[row] for row in rows]
    assert {y: taken.count(y) for y in set(labels)} == {y: min(shots, labels.count(y)) for y in set(labels)}
    assert rows == sample(labels, shots, random.Random(seed))


def test_no_shots_means_all() -> None:
    assert few_shot([1, 0, 1], [0], 0, seed=1).train == (0, 1, 2)
    assert few_shot([1, 0, 1], [0], 0, seed=1).val == (0,)


def test_base_is_the_first_half_rounded_up() -> None:
    assert base_new(range(5)) == ((0, 1, 2), (3, 4))
    assert base_new([9, 3, 3, 7, 1]) == ((1, 3), (7, 9))
    assert base_new([]) == ((), ())
    base, new = base_new(range(100))
    assert (len(base), len(new)) == (50, 50)


@given(st.sets(st.integers(0, 500)))
def test_base_and_new_part_the_labels(labels: set[int]) -> None:
    base, new = base_new(labels)
    assert [*base, *new] == sorted(labels)
    assert len(base) - len(new) in (0, 1)
