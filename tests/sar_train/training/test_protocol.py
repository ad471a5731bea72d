"""Which classes are base and which new."""

from __future__ import annotations

import pytest

from sar_train.errors import ConfigError
from sar_train.training.protocol import plan


def test_base_to_new_is_the_first_half_rounded_up() -> None:
    chosen = plan("auto", 37, published_split=True)
    assert (chosen.protocol, chosen.split) == ("base-to-new", "test")
    assert (chosen.base, chosen.new) == (tuple(range(19)), tuple(range(19, 37)))


def test_pseudo_never_touches_new_classes_or_test_photos() -> None:
    chosen = plan("pseudo", 100, published_split=True)
    assert chosen.split == "val"
    assert (chosen.base, chosen.new) == (tuple(range(25)), tuple(range(25, 50)))


def test_a_folder_trains_on_all_its_classes() -> None:
    chosen = plan("auto", 12, published_split=False)
    assert (chosen.protocol, chosen.base, chosen.new) == ("all", tuple(range(12)), ())


@pytest.mark.parametrize(("protocol", "count"), [("base-to-new", 2), ("pseudo", 4)])
def test_too_few_classes(protocol: str, count: int) -> None:
    with pytest.raises(ConfigError, match=str(count)):
        plan(protocol, count, published_split=True)
