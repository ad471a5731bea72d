"""CoCoOp: a context shifted by the image (Zhou et al., CVPR 2022, arXiv 2203.05557).

A small network looks at the unit image feature x and gives one vector that is added to all context vectors,
v_m(x) = v_m + pi(x) with pi = Linear, ReLU, Linear; the loss is the cross-entropy. Every image has class embeddings of
its own, which is why the paper trains with batch 1. With a regulariser, its names are embedded under the prompt of the
step's first image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sar_train.clip.prompts import Prompts
from sar_train.methods.base import Classes, PromptMethod, Schedule, Setup, linear, methods, start_context


@dataclass(frozen=True)
class CoCoOpConfig:
    """Settings of CoCoOp.

    Args:
        context_init: words from which the context starts; empty for random vectors.
        n_ctx: M, if the context starts from random vectors.
        reduction: the network's hidden layer has D / reduction units; the paper's 16.
    """

    context_init: str = "a photo of a"
    n_ctx: int = 4
    reduction: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.n_ctx <= 64:
            raise ValueError(f"n_ctx: expected 1 to 64, got {self.n_ctx}")
        if self.reduction < 1:
            raise ValueError(f"reduction: expected 1 or more, got {self.reduction}")


@methods.register("cocoop")
class CoCoOp(PromptMethod):
    """Context vectors (M, W) and the network that shifts them."""

    Config = CoCoOpConfig
    schedule = Schedule(epochs=10, learning_rate=2e-3, batch_size=1)  # vit_b16_c4_ep10_batch1_ctxv1.yaml
    paper = "Conditional Prompt Learning for Vision-Language Models, arXiv 2203.05557"
    per_image = True

    mean_image: Tensor

    def __init__(self, config: CoCoOpConfig, setup: Setup) -> None:
        """Start the context, then draw the network's weights."""
        super().__init__(config, setup)
        backbone = setup.backbone
        self.context = start_context(setup, config.context_init, config.n_ctx)
        inner = max(1, backbone.embed_dim // config.reduction)
        self.network = nn.Sequential(
            linear(setup, backbone.embed_dim, inner), nn.ReLU(), linear(setup, inner, backbone.text.width)
        )
        self.register_buffer("mean_image", torch.zeros(backbone.embed_dim, device=backbone.device))

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the context for an image; without one, for the mean training image."""
        return Prompts(self.context + self.network(self.mean_image if image is None else image))
