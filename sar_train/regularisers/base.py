"""The base of all regularisers: a penalty on class embeddings that composes with every method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sar_train.registry import Registry


@dataclass(frozen=True)
class RegulariserInputs:
    """The classes of one step.

    Attributes:
        prompted: (K, D) unit class embeddings under the learned prompt, with gradient.
        handcrafted: (K, D) the same under the hand-crafted template (the teacher), without gradient.
        is_base: (K,) which of them are trained on images; the others are novel names.
    """

    prompted: Tensor
    handcrafted: Tensor
    is_base: Tensor


class Regulariser(ABC):
    """A penalty with its own choice of classes per step.

    Class attribute: ``Config``, a frozen dataclass with a ``weight``.
    """

    Config: ClassVar[type[Any]]

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Keep the settings."""

    @abstractmethod
    def draw(self, n_base: int, n_novel: int, generator: torch.Generator) -> Tensor:
        """Draw (K,) indices of a step's classes, each once: base classes first (below ``n_base``), then novel ones."""

    @abstractmethod
    def weight(self, progress: float) -> float:
        """Return the multiplier of the penalty when ``progress`` (0 to 1) of the training is done."""

    @abstractmethod
    def __call__(self, inputs: RegulariserInputs) -> Tensor:
        """Compute the unweighted penalty, a scalar."""


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


regularisers: Registry[Regulariser] = Registry("regulariser", "sar_train.regularisers")
