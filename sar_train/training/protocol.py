"""The classes that a run learns from, and those that it is judged on."""

from __future__ import annotations

from dataclasses import dataclass

from sar_train.data.images import Split
from sar_train.data.shots import base_new, pseudo_split
from sar_train.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """Labels of the source, in its class order.

    Attributes:
        protocol: the protocol's name.
        base: classes with images to learn from.
        new: evaluated classes without; empty where the protocol has none.
        split: the split whose images are judged.
    """

    protocol: str
    base: tuple[int, ...]
    new: tuple[int, ...]
    split: Split


def plan(protocol: str, n_classes: int, *, published_split: bool) -> Plan:
    """Choose classes as CoCoOp does: base is the first half of the labels, rounded up.

    Args:
        protocol: ``base-to-new``; ``all`` classes, none of them new; ``pseudo``, the base half split again and judged
            on its validation images, for tuning; ``auto``, base-to-new where the data has a published split.
        n_classes: classes of the data.
        published_split: whether the data came with its splits.

    Raises:
        ConfigError: too few classes to split.
    """
    if protocol == "auto":
        protocol = "base-to-new" if published_split else "all"
    if protocol == "all":
        return Plan(protocol, tuple(range(n_classes)), (), "test")
    base, new = base_new(range(n_classes))
    split: Split = "test"
    if protocol == "pseudo":
        base, new = pseudo_split(base)
        split = "val"
    if len(base) < 2 or not new:
        raise ConfigError(f"--protocol {protocol} splits the classes in two, but there are only {n_classes}: use all")
    return Plan(protocol, base, new, split)
