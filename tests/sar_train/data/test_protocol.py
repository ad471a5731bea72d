"""Which classes are base and which new."""

from __future__ import annotations

import pytest

from sar_train.data.protocol import plan
from sar_train.errors import ConfigError


def named(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def test_base_to_new_is_the_first_half_rounded_up() -> None:
    chosen = plan("auto", named(37), published_split=True)
    assert (chosen.protocol, chosen.split) == ("base-to-new", "test")
    assert (chosen.base, chosen.new) == (tuple(range(19)), tuple(range(19, 37)))


def test_pseudo_never_touches_new_classes_or_test_photos() -> None:
    chosen = plan("pseudo", named(100), published_split=True)
    assert chosen.split == "val"
    assert (chosen.base, chosen.new) == (tuple(range(25)), tuple(range(25, 50)))


@pytest.mark.parametrize(
    ("protocol", "count", "words"),
    [
        ("base-to-new", 2, "only 2: use all"),
        ("pseudo", 4, "only 4: use all"),
        ("all", 1, r"one class only \(class 0\)"),
    ],
)
def test_too_few_classes(protocol: str, count: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan(protocol, named(count), published_split=True)


def test_named_base_classes_keep_the_order_of_labels() -> None:
    chosen = plan("base-to-new", ["a", "b", "c", "d", "e"], published_split=False, base_classes="d, a,b")
    assert (chosen.base, chosen.new, chosen.split) == ((0, 1, 3), (2, 4), "test")


def test_deals_of_the_base_half_differ_and_leave_new_classes_alone() -> None:
    dealt = [plan("pseudo", named(100), published_split=True, base_classes=f"deal:{k}") for k in (1, 2, 3, 1)]
    for chosen in dealt:
        assert sorted(chosen.base + chosen.new) == list(range(50))
        assert (len(chosen.base), chosen.split) == (25, "val")
        assert list(chosen.base) == sorted(chosen.base)
    assert len({chosen.base for chosen in dealt}) == 3
    assert dealt[0] == dealt[3]


@pytest.mark.parametrize(
    ("protocol", "base_classes", "expected"),
    [
        ("base-to-new", "class 1, cat", "cat"),
        ("base-to-new", "deal:one", "one"),
        ("base-to-new", "class 0", "only"),
        ("pseudo", "class 9, class 1", "class 9"),  # a new class of the protocol is not there to choose
        ("all", "class 0, class 1", "no new classes"),
    ],
)
def test_base_classes_that_cannot_be(protocol: str, base_classes: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        plan(protocol, named(10), published_split=False, base_classes=base_classes)
