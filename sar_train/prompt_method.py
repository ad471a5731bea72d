"""What a prompt-tuning method is: trainable parameters that turn into `Prompts`, and its own loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sar_train.backbone import Backbone
from sar_train.prompts import Prompts
from sar_train.registry import Registry


@dataclass(frozen=True)
class Schedule:
    """How a method is trained unless the user says otherwise (SGD with momentum; `loop.learning_rate`)."""

    epochs: int
    learning_rate: float
    batch_size: int
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclass(frozen=True)
class ForwardOutputs:
    """What one training step computed.

    Attributes:
        images: (B, D) unit image features.
        prompted: (C, D) unit class embeddings under the learned prompt, with gradient.
        handcrafted: (C, D) the same under the hand-crafted template, without.
        logits: (B, C) scaled cosines.
        labels: (B,) classes of the images.
    """

    images: Tensor
    prompted: Tensor
    handcrafted: Tensor
    logits: Tensor
    labels: Tensor


class PromptMethod(nn.Module, ABC):
    """One method of the field; its parameters are all that is trained.

    Class attributes: ``Config`` (a frozen dataclass with cited defaults), ``schedule`` and ``paper``.
    """

    Config: ClassVar[type[Any]]
    schedule: ClassVar[Schedule]
    paper: ClassVar[str]

    @abstractmethod
    def __init__(self, config: Any, backbone: Backbone, class_names: Sequence[str], generator: torch.Generator) -> None:
        """Make the parameters; every random number comes from ``generator``."""
        super().__init__()

    @abstractmethod
    def prompts(self) -> Prompts:
        """The prompts as they are now, differentiable; they hold for any list of class names."""

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:  # noqa: ARG002
        """Loss terms beside the cross-entropy, already weighted; none by default."""
        return {}


methods: Registry[PromptMethod] = Registry("method", "sar_train.methods")
