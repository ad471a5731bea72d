"""The draws of CoOp, written out here with the global generator as CoOp uses it."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.photos import SHARED, needs_shared

from sar_train.data.dataset import Photo
from sar_train.data.layouts import LAYOUTS
from sar_train.data.readers.coop import read_split
from sar_train.data.splits import few_shot, hold_out


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
    _, splits = read_split(SHARED / "caltech-101" / LAYOUTS["caltech101"].split_file)
    train, val = splits["train"], splits["val"]
    drawn = few_shot([y for _, y in train], [y for _, y in val], shots, seed)
    expected = as_coop_does(train, val, shots, seed)
    assert [train[i][0] for i in drawn.train] == expected[0]
    assert [val[i][0] for i in drawn.val] == expected[1]


@given(st.integers(0, 300), st.integers(0, 50))
def test_photos_are_held_out_beyond_the_shots(count: int, shots: int) -> None:
    splits = hold_out([Photo(f"a/{i}.jpg", 0) for i in range(count)], shots, 1)
    train, val, test = (len(splits[split]) for split in ("train", "val", "test"))
    assert train + val + test == count == len({photo for photos in splits.values() for photo in photos})
    assert val <= 4
    if count > 1:
        assert train >= 1
        assert test >= max(1, val)
    if 0 < shots < count:
        assert train == shots


def test_what_is_held_out_depends_on_photos_and_seed_alone() -> None:
    photos = [Photo(f"{c}/{i:02}.jpg", label) for label, c in enumerate("ab") for i in range(12)]
    splits = hold_out(photos, 4, 1)
    assert hold_out(reversed(photos), 4, 1) == splits
    assert hold_out(photos, 4, 2) != splits
    # What Python's own generator gives, photos shuffled class by class.
    rng, names = random.Random(1), [[photo.path for photo in photos if photo.label == label] for label in (0, 1)]
    for of_class in names:
        rng.shuffle(of_class)
    assert [photo.path for photo in splits["train"]] == [p for of_class in names for p in sorted(of_class[:4])]
    assert [photo.path for photo in splits["val"]] == [p for of_class in names for p in sorted(of_class[4:8])]
