"""The classes that a run learns from, and those that it is evaluated on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sar_train.data.dataset import Split
from sar_train.errors import ConfigError

DEAL = "deal:"
"""In front of a number: base classes are drawn at random, by a generator of that seed."""


@dataclass(frozen=True)
class Plan:
    """Labels of the source, in its class order.

    Attributes:
        protocol: the protocol's name.
        base: classes with images to learn from.
        new: evaluated classes without; empty where the protocol has none.
        split: the split whose images are evaluated.
    """

    protocol: str
    base: tuple[int, ...]
    new: tuple[int, ...]
    split: Split


def plan(protocol: str, names: Sequence[str], *, published_split: bool, base_classes: str | None = None) -> Plan:
    """Choose classes as CoCoOp does: base is the first half of the labels, rounded up.

    Args:
        protocol: ``base-to-new``; ``all`` classes, none of them new; ``pseudo``, the base half split again and
            evaluated on its validation images, for tuning; ``auto``, base-to-new where the data has a published split.
        names: of the data's classes, by label.
        published_split: whether the data came with its splits.
        base_classes: another half: names separated by commas, or ``deal:K`` for half of the classes at random, the
            same ones for the same K. Under ``pseudo`` the first half stays base, and this says how it is split again.

    Raises:
        ConfigError: one class only, too few to split, or base classes that are not there.
    """
    if len(names) == 1:
        raise ConfigError(f"one class only ({names[0]}); a classifier needs two or more")
    if protocol == "auto":
        protocol = "base-to-new" if published_split else "all"
    labels = tuple(range(len(names)))
    if protocol == "all":
        if base_classes:
            raise ConfigError("base_classes: protocol all has no new classes; use base-to-new, or leave it out")
        return Plan(protocol, labels, (), "test")
    pseudo = protocol == "pseudo"
    if pseudo:
        labels = labels[: (len(labels) + 1) // 2]
    half = (len(labels) + 1) // 2
    if not base_classes:
        chosen = set(labels[:half])
    elif base_classes.startswith(DEAL):
        seed = base_classes.removeprefix(DEAL)
        if not seed.isdecimal():
            raise ConfigError(f"base_classes: expected a whole number after {DEAL}, got {seed!r:.40}")
        chosen = set(random.Random(int(seed)).sample(labels, half))
    else:
        label_of = {names[label]: label for label in labels}
        named = [name.strip() for name in base_classes.split(",") if name.strip()]
        if missing := [name for name in named if name not in label_of]:
            raise ConfigError(f"base_classes: no class {missing[0]!r}; there are {', '.join(label_of):.300}")
        chosen = {label_of[name] for name in named}
    base = tuple(label for label in labels if label in chosen)
    new = tuple(label for label in labels if label not in chosen)
    if len(base) < 2 or not new:
        raise ConfigError(f"--protocol {protocol} splits the classes in two, but there are only {len(names)}: use all")
    return Plan(protocol, base, new, "val" if pseudo else "test")
