"""A task: the classes and photos that a prompt is learned from and evaluated on; a regulariser's names beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sar_train.data.dataset import Split
from sar_train.data.features import Features
from sar_train.regularisers.base import Regulariser

Crops = Callable[[Tensor, int], Tensor]
"""(B, 3, size, size) encoder input, a random crop of each of (B,) rows of a task, for an epoch (from 1)."""
MOST_VALIDATION = 1000
"""Validation photos that confidence is fitted on; a quantile of as many is known to a point."""
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
    def of(
        cls, features: Features, classes: Sequence[int], split: Split, *, most: int | None = None
    ) -> Evaluated | None:
        """Return the photos of some classes of a split; None where there are none.

        Args:
            features: of the data.
            classes: labels of the data.
            split: the split.
            most: of more photos, that many are taken at random, the same ones in every run.
        """
        numbers = {label: number for number, label in enumerate(classes)}
        labels = features.labels(split)
        rows = torch.tensor([row for row, label in enumerate(labels.tolist()) if label in numbers], dtype=torch.long)
        if not len(rows):
            return None
        if most is not None and len(rows) > most:
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most].sort().values]
        names = [features.dataset.class_names[label] for label in classes]
        truth = torch.tensor([numbers[int(label)] for label in labels[rows]])
        return cls(names, features.plain(split, rows), truth, rows, split)

    def copies_of(self, learned: Tensor) -> list[int]:
        """Return the rows of the photos that are the same as one of others, given as (M, D) plain views."""
        pieces = self.features.split(64)  # the products with many others stay small
        same = [closest > _SAME for piece in pieces for closest in (piece @ learned.T).amax(1).tolist()]
        return [row for row, copy in zip(self.rows.tolist(), same, strict=True) if copy]


@dataclass(frozen=True, eq=False)
class Task:
    """The classes and photos of a run.

    Attributes:
        features: (N, V, D) unit features of the shots, V views each, from the untouched image tower. The first is the
            plain one; where there are others, steps draw from those alone.
        labels: (N,) 0 to C - 1.
        class_names: the C classes that are learned.
        handcrafted: (C, D) their hand-crafted embeddings.
        crops: only for methods that prompt the image tower, which learn from these instead of the features.
        base: photos of the learned classes that the run is evaluated on; None where there are none.
        new: those of new classes.
        validation: validation photos of the learned classes, which confidence is fitted on; None where there are none,
            or the run is evaluated on them.
    """

    features: Tensor
    labels: Tensor
    class_names: Sequence[str]
    handcrafted: Tensor
    crops: Crops | None = None
    base: Evaluated | None = None
    new: Evaluated | None = None
    validation: Evaluated | None = None


@dataclass(frozen=True)
class Regularisation:
    """A regulariser with the names and embeddings that it needs.

    Attributes:
        regulariser: the penalty.
        novel_names: names without photos.
        teacher: (n_base + n_novel, D) what the regulariser compares with, base classes first.
        handcrafted: (n_novel, D) novel names under the single template, for methods that need them; None where the
            teacher is just that.
    """

    regulariser: Regulariser
    novel_names: Sequence[str]
    teacher: Tensor
    handcrafted: Tensor | None = None

    @property
    def novel_handcrafted(self) -> Tensor:
        """Return (n_novel, D) embeddings of the novel names under the single template."""
        if self.handcrafted is not None:
            return self.handcrafted
        return self.teacher[len(self.teacher) - len(self.novel_names) :]
