"""DePT: a linear head takes what is special to the base classes off the prompt (Zhang et al., CVPR 2024, 2309.07439).

On top of another method: image and text features go through a scale and a bias of their own (FiLM) and one linear layer
to the base classes, trained on both at once; the prompt's own cross-entropy keeps the share 1 - mix::

    loss = (1 - mix) CE + mix CE(linear(FiLM(features))) + the other method's terms

Exactly the trained classes are predicted by (1 - mix) text logits + mix linear logits, any other list of names by text
logits. As in Koorye/DePT, whose features are not normalised; here they are unit rows times one typical length, because
cached features are unit rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sar_train.clip.prompts import Prompts
from sar_train.methods.base import Classes, ForwardOutputs, Head, PromptMethod, Schedule, Setup, linear, methods

BASE_SETTINGS: dict[str, dict[str, Any]] = {"coop": {"context_init": "", "n_ctx": 16}, "kgcoop": {"weight": 2.0}}
"""The paper's settings of the methods that it builds on: CoOp from 16 random vectors, KgCoOp with weight 2."""


@dataclass(frozen=True)
class DePTConfig:
    """Settings of DePT.

    Args:
        on: ``coop`` (from 16 random vectors) or ``kgcoop`` (weight 2), as in the paper.
        mix: share of the head in loss and prediction; the paper's 0.7.
        head_rate: learning rate of scales, biases and head; the paper's 6.5 times 3.5e-3.
        feature_length: norm of the features for the head, about CLIP ViT-B/16's; the authors' features keep their own.
    """

    on: Literal["coop", "kgcoop"] = "coop"
    mix: float = 0.7
    head_rate: float = 6.5 * 3.5e-3
    feature_length: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 1 or self.head_rate <= 0 or self.feature_length <= 0:
            raise ValueError("mix: expected 0 to 1; head_rate, feature_length: expected more than 0")


@methods.register("dept")
class DePT(PromptMethod):
    """The prompts of another method, two FiLM layers (D) and a linear head (C, D)."""

    Config = DePTConfig
    schedule = Schedule(epochs=10, learning_rate=3.5e-3, batch_size=4)
    paper = "DePT: Decoupled Prompt Tuning, arXiv 2309.07439"
    sar_weight = 0.0

    config: DePTConfig

    def __init__(self, config: DePTConfig, setup: Setup) -> None:
        """Start the other method, FiLM as the identity, and draw the head's weights."""
        super().__init__(config, setup)
        kind = methods.get(config.on)
        self.base = kind(kind.Config(**BASE_SETTINGS[config.on]), setup)
        size, device = setup.backbone.embed_dim, setup.backbone.device
        self.scale = nn.ParameterDict({t: torch.ones(size, device=device) for t in ("image", "text")})
        self.shift = nn.ParameterDict({t: torch.zeros(size, device=device) for t in ("image", "text")})
        self.linear = linear(setup, size, len(setup.class_names))

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:
        """Return the prompts of the other method."""
        return self.base.prompts(classes, image)

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:
        """Return the other method's terms, its cross-entropy at the share 1 - mix, and the head's cross-entropy."""
        mix, terms = self.config.mix, self.base.terms(outputs)
        features = {"text": outputs.prompted[outputs.labels], "image": outputs.images}
        length = self.config.feature_length
        logits = torch.cat([self.linear(self.scale[t] * length * rows + self.shift[t]) for t, rows in features.items()])
        terms["cross_entropy"] = (1 - mix) * terms["cross_entropy"]
        return terms | {"linear_head": mix * cross_entropy(logits, outputs.labels.repeat(2))}

    def groups(self, learning_rate: float) -> list[tuple[list[nn.Parameter], float]]:
        """Return the other method's parameters at the run's rate, FiLM and head at their own."""
        new = [*self.scale.parameters(), *self.shift.parameters(), *self.linear.parameters()]
        return [*self.base.groups(learning_rate), (new, self.config.head_rate)]

    def head(self) -> Head:
        """Return FiLM and linear layer as one map of unit image features."""
        weight = self.linear.weight
        return Head(
            (self.config.feature_length * weight * self.scale["image"]).detach(),
            (self.linear.bias + weight @ self.shift["image"]).detach(),
            self.config.mix,
        )
