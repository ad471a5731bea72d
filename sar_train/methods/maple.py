"""MaPLe: coupled prompts in both towers (Khattak et al., CVPR 2023, arXiv 2210.03117).

The text context has M learnable vectors instead of the first words of ``a photo of a``; the other words stay. In
front of blocks 1 to J - 1 those positions are replaced by a set of each layer's own. The image tower gets linear images
of the same vectors: M tokens at the end of the patches, replaced in front of blocks 1 to J - 1. So the image prompts
are functions of the text prompts. The loss is the cross-entropy. As in muzairkhattak/multimodal-prompt-learning.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sar_train.clip.prompts import DeepPrompt, Prompts
from sar_train.methods.base import Classes, PromptMethod, Schedule, Setup, linear, methods, normal, scale_depth


@dataclass(frozen=True)
class MaPLeConfig:
    """Settings of MaPLe.

    Args:
        context_init: words from which the context starts; the first ``n_ctx`` of their tokens are learned.
        n_ctx: M; the paper's 2.
        depth: J for towers of 12 layers, scaled to others; the paper's 9 (3 for cross-dataset transfer).
    """

    context_init: str = "a photo of a"
    n_ctx: int = 2
    depth: int = 9

    def __post_init__(self) -> None:
        if not 1 <= self.n_ctx <= 64 or not 1 <= self.depth <= 12:
            raise ValueError("n_ctx: expected 1 to 64; depth: expected 1 to 12")


@methods.register("maple")
class MaPLe(PromptMethod):
    """Text prompts (M, W) for J layers, and a linear map to the image tower's width for each."""

    Config = MaPLeConfig
    schedule = Schedule(epochs=5, learning_rate=3.5e-3, batch_size=4)
    paper = "MaPLe: Multi-modal Prompt Learning, arXiv 2210.03117"
    towers = ("text", "image")

    rest: Tensor

    @classmethod
    def published(cls, experiment: str, *, shots: int, dataset: str) -> dict[str, Any]:  # noqa: ARG003
        """Return shallower prompts, fewer epochs and a smaller rate for transfer to other datasets."""
        if experiment not in ("cross-dataset", "domain-generalisation"):
            return {}
        return {"epochs": 2, "learning_rate": 2.6e-3, "maple": {"depth": 3}}

    def __init__(self, config: MaPLeConfig, setup: Setup) -> None:
        """Start from words; deeper sets and the maps are random, the maps of deeper layers equal."""
        super().__init__(config, setup)
        text, image = setup.backbone.text, setup.backbone.image_tower("maple")
        words = text.embed_text(config.context_init)
        start = words[: config.n_ctx].clone() if len(words) >= config.n_ctx else normal(setup, config.n_ctx, text.width)
        self.context = nn.Parameter(start)
        self.register_buffer("rest", words[config.n_ctx :].clone(), persistent=False)
        deeper = min(scale_depth(config.depth, len(tower.blocks)) for tower in (text, image)) - 1
        self.deep = nn.ParameterList(normal(setup, config.n_ctx, text.width) for _ in range(deeper))
        self.project = linear(setup, text.width, image.width)
        first = linear(setup, text.width, image.width)
        self.project_deep = nn.ModuleList(copy.deepcopy(first) for _ in range(deeper))

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the text prompts and the image prompts made from them, the same for all classes."""
        pairs = list(zip(self.deep, self.project_deep, strict=True))
        return Prompts(
            torch.cat([self.context, self.rest]),
            text={layer: DeepPrompt(vectors) for layer, (vectors, _) in enumerate(pairs, 1)},
            image={0: DeepPrompt(self.project(self.context), "append")}
            | {layer: DeepPrompt(map_(vectors)) for layer, (vectors, map_) in enumerate(pairs, 1)},
        )
