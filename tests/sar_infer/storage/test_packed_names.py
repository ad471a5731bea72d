from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_infer.storage.packed_names import PackedNames

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8)
NAMES = ("cat", "日本 spitz", "", "é\0")


@given(
    names=TEXTS,
    start=st.none() | st.integers(-9, 9),
    stop=st.none() | st.integers(-9, 9),
    step=st.sampled_from([None, 1, 2, -1]),
)
def test_it_is_the_tuple_of_its_names(names: list[str], start, stop, step) -> None:
    packed, whole = PackedNames.of(names), tuple(names)
    assert (tuple(packed), len(packed), hash(packed)) == (whole, len(whole), hash(whole))
    assert packed == whole
    assert whole == packed
    assert [packed[place] for place in range(-len(whole), len(whole))] == [*whole, *whole]
    assert packed[start:stop:step] == whole[start:stop:step]
    assert PackedNames(packed.data, packed.offsets) == packed


@given(parts=st.lists(TEXTS, max_size=4))
def test_chained(parts: list[list[str]]) -> None:
    assert PackedNames.chain(parts) == tuple(itertools.chain(*parts))
    assert PackedNames.chain(PackedNames.of(part)[1:] for part in parts) == tuple(
        itertools.chain(*(p[1:] for p in parts))
    )


def test_what_it_does_not_equal() -> None:
    packed = PackedNames.of(NAMES)
    for other in (NAMES[:3], (*NAMES[:3], "e"), list(NAMES), "cat", PackedNames.of(NAMES[1:])):
        assert packed != other
    assert PackedNames.of(packed) is packed
    assert repr(packed) == "<4 names: 'cat', '日本 spitz', '', …>"
    for place in (4, -5):
        with pytest.raises(IndexError, match="among 4"):
            packed[place]


@pytest.mark.parametrize(
    ("data", "offsets", "message"),
    [
        (b"abc", [0, 4], "do not fit"),
        (b"abc", [0, 2], "do not fit"),
        (b"abc", [1, 3], "do not fit"),
        (b"abc", [0, 2, 1, 3], "do not fit"),
        (b"abc", [0, -(2**63), 3], "do not fit"),
        (b"abc", [], "do not fit"),
        (b"ab\xff", [0, 3], "utf-8"),
        (b"ab\xc3", [0, 3], "utf-8"),
        ("é".encode(), [0, 1, 2], "cut a character"),
    ],
)
def test_unsound(data: bytes, offsets: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackedNames(np.frombuffer(data, dtype=np.uint8), np.array(offsets, dtype=np.int64))


def test_half_a_character_cannot_be_packed() -> None:
    with pytest.raises(UnicodeEncodeError):
        PackedNames.of(["\ud800"])


def test_names_are_packed_as_files_hold_them() -> None:
    packed = PackedNames.of(("x", "é"))
    assert (packed.data.tobytes().decode(), packed.offsets.tolist()) == ("xé", [0, 1, 3])
    assert PackedNames.of(()).offsets.tolist() == [0]
