"""One way to add a method."""

from __future__ import annotations

import pytest

from sar_train.errors import ConfigError
from sar_train.methods.base import methods
from sar_train.registry import Registry


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'cop'.*'coop'"):
        methods.get("cop")


def test_a_name_can_be_taken_once() -> None:
    registry: Registry[object] = Registry("thing", "sar_train.methods")
    registry.register("a")(int)
    with pytest.raises(ValueError, match="twice"):
        registry.register("a")(str)
