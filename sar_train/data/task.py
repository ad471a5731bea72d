"""A task: the classes and photos that a prompt is learned from, and those that it is evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sar_train.clip.backbone import Backbone
from sar_train.config.run import RunConfig
from sar_train.data.dataset import Split
from sar_train.data.features import Features, PhotoFeatures
from sar_train.data.protocol import Plan
from sar_train.errors import ConfigError

Crops = Callable[[Tensor, int], Tensor]
"""(B, 3, size, size) encoder input, a random crop of each of (B,) rows of a task, for an epoch (from 1)."""
_SAME = 1 - 1e-6
"""Cosine of two encodings of one photo, which differ by rounding; a photo that was saved again is below."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The photos of some classes that a run is evaluated on.

    Attributes:
        class_names: the C classes, which are the candidates.
        features: (N, D) plain views under the untouched image tower.
        labels: (N,) 0 to C - 1.
        rows: (N,) their places in the split.
        split: the split.
    """

    class_names: Sequence[str]
    features: Tensor
    labels: Tensor
    rows: Tensor
    split: Split

    @classmethod
    def of(cls, features: Features, classes: Sequence[int], split: Split) -> Evaluated | None:
        """Return the photos of some classes of a split; None where there are none.

        Args:
            features: of the data.
            classes: labels of the data.
            split: the split.
        """
        numbers = {label: number for number, label in enumerate(classes)}
        labels = features.labels(split)
        rows = torch.tensor([row for row, label in enumerate(labels.tolist()) if label in numbers], dtype=torch.long)
        if not len(rows):
            return None
        names = [features.dataset.class_names[label] for label in classes]
        truth = torch.tensor([numbers[int(label)] for label in labels[rows]])
        return cls(names, features.plain(split, rows), truth, rows, split)

    def copies_of(self, learned: Tensor) -> list[tuple[int, int]]:
        """Return the row of each photo that is the same as one of others, (M, D) plain views, and the place of that."""
        pieces = self.features.split(64)  # the products with many others stay small
        nearest = [
            pair for piece in pieces for pair in zip(*map(Tensor.tolist, (piece @ learned.T).max(1)), strict=True)
        ]
        return [(row, at) for row, (cosine, at) in zip(self.rows.tolist(), nearest, strict=True) if cosine > _SAME]


@dataclass(frozen=True, eq=False)
class Task:
    """The classes and photos of a run.

    Attributes:
        features: (N, V, D) unit features of the shots, V views each, from the untouched image tower. The first is the
            plain one; if there are others, steps draw only from those.
        labels: (N,) 0 to C - 1.
        class_names: the C classes that are learned.
        handcrafted: (C, D) their hand-crafted embeddings.
        crops: only for methods that prompt the image tower, which learn from these instead of the features.
        base: photos of the learned classes that the run is evaluated on; None where there are none.
        new: those of new classes.
    """

    features: Tensor
    labels: Tensor
    class_names: Sequence[str]
    handcrafted: Tensor
    crops: Crops | None = None
    base: Evaluated | None = None
    new: Evaluated | None = None


def make_task(
    features: Features, plan: Plan, config: RunConfig, backbone: Backbone, template: str, *, image_prompts: bool = False
) -> Task:
    """Draw the photos that are learned from, and gather those that the run is evaluated on.

    Args:
        features: of the data.
        plan: which classes are base and new, and the split that is evaluated.
        config: the settings.
        backbone: embeds the names.
        template: the hand-crafted one that the method compares with.
        image_prompts: whether the method prompts the image tower, so that it learns from crops.

    Raises:
        ConfigError: the method needs photos, and there are only features.
        DataError: a photo cannot be read.
    """
    rows = learned_rows(features, plan, config)
    crops = random_crops(features, rows, config) if image_prompts else None
    names = [features.dataset.class_names[label] for label in plan.base]
    labels = features.labels("train").tolist()
    numbers = {label: number for number, label in enumerate(plan.base)}
    return Task(
        features.views("train", rows) if crops is None else features.plain("train", rows)[:, None],
        torch.tensor([numbers[labels[row]] for row in rows]),
        names,
        backbone.embed_names(names, template),
        crops,
        base=Evaluated.of(features, plan.base, plan.split),
        new=Evaluated.of(features, plan.new, plan.split),
    )


def learned_rows(features: Features, plan: Plan, config: RunConfig) -> tuple[int, ...]:
    """Return the rows of the training split that are learned from: those drawn, of the base classes."""
    labels, base = features.labels("train").tolist(), set(plan.base)
    return tuple(row for row in features.draw(config.shots, config.seed).train if labels[row] in base)


def random_crops(features: Features, rows: Sequence[int], config: RunConfig) -> Crops:
    """Return random crops of some training photos.

    Args:
        features: of the data.
        rows: the photos' rows in the training split.
        config: the settings.

    Raises:
        ConfigError: there are only features.
    """
    if not isinstance(features, PhotoFeatures):
        raise ConfigError(
            f"method {config.method} puts prompts into the image tower, so it needs the photos; {config.data} has "
            "only features that were made before: give a folder of photos or a dataset, or choose a method that "
            "prompts only the text side (sar-train --list-methods)"
        )
    drawn = torch.tensor(rows)
    return lambda chosen, epoch: features.crops(drawn[chosen], epoch)
