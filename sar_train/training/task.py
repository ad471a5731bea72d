"""The data that a prompt is learned from: images of the base classes, and what a regulariser needs besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from sar_train.regularisers.base import Regulariser


@dataclass(frozen=True)
class FewShotTask:
    """The data that a method learns from.

    Attributes:
        features: (N, V, D) unit image features of the shots, V views each, from the untouched image tower. The first is
            the plain one; where there are others, steps draw from those alone.
        labels: (N,) 0 to C - 1.
        class_names: the C classes.
        handcrafted: (C, D) their hand-crafted embeddings.
        crops: gives (B, 3, size, size) encoder input, a random crop of each of (B,) rows, for an epoch (from 1); only
            for methods that prompt the image tower, which learn from these instead of the features.
    """

    features: Tensor
    labels: Tensor
    class_names: Sequence[str]
    handcrafted: Tensor
    crops: Callable[[Tensor, int], Tensor] | None = None


@dataclass(frozen=True)
class Regularisation:
    """A regulariser with the names and embeddings that it needs.

    Attributes:
        regulariser: the penalty.
        novel_names: names without images.
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
