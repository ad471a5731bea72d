"""CoOp: learn M context vectors shared by all classes (Zhou et al., IJCV 2022, arXiv 2109.01134).

The prompt of class c is ``[start][v_1 … v_M][name of c][.][end]``; the loss is the cross-entropy of the scaled cosines
between image features and prompted class embeddings, and nothing else. The context is trained in float32 (the reference
implementation keeps it in float16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sar_train.backbone import Backbone
from sar_train.prompt_method import PromptMethod, Schedule, methods
from sar_train.prompts import Prompts


@dataclass(frozen=True)
class CoOpConfig:
    """Settings of CoOp.

    Attributes:
        context_init: words whose token vectors the context starts from; empty for random vectors. The base-to-new
            scripts of CoCoOp start CoOp from "a photo of a" (M = 4), the few-shot paper from random vectors.
        n_ctx: M where the context starts from random vectors, N(0, 0.02^2); the paper's 16.
    """

    context_init: str = "a photo of a"
    n_ctx: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.n_ctx <= 64:
            raise ValueError(f"n_ctx: expected 1 to 64, got {self.n_ctx}")


@methods.register("coop")
class CoOp(PromptMethod):
    """Context vectors (M, W) in front of the class name."""

    Config = CoOpConfig
    schedule = Schedule(epochs=200, learning_rate=2e-3, batch_size=32)  # vit_b16_ctxv1.yaml; 50 epochs for ImageNet
    paper = "Learning to Prompt for Vision-Language Models, arXiv 2109.01134"

    def __init__(
        self,
        config: CoOpConfig,
        backbone: Backbone,
        class_names: Sequence[str],  # noqa: ARG002  shared context: the classes do not matter
        generator: torch.Generator,
    ) -> None:
        """Start the context from words or from random vectors."""
        nn.Module.__init__(self)
        tower = backbone.text
        if config.context_init:
            start = tower.embed_text(config.context_init).clone()
        else:
            start = 0.02 * torch.randn(config.n_ctx, tower.width, generator=generator)
        self.context = nn.Parameter(start.to(backbone.device, torch.float32))

    def prompts(self) -> Prompts:
        """The learned context, then the name and a full stop."""
        return Prompts(self.context)
