"""TCP: prompts from the class's own hand-crafted embedding (Yao, Zhang, Xu, CVPR 2024, arXiv 2311.18231).

A small network turns the hand-crafted unit embedding v_c into class-aware tokens T_c (M, W): Linear, QuickGELU, Linear.
M shared context vectors run through the first blocks; in front of one block (8 of CLIP's 12) T_c takes their place. The
loss is KgCoOp's. New names work because v_c can be computed for any name. The student has the teacher's text behind the
name, so that both read the same tokens. As in htyao89/Textual-based_Class-aware_prompt_tuning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sar_train.prompt_method import (
    Classes,
    ForwardOutputs,
    PromptMethod,
    Schedule,
    Setup,
    linear,
    methods,
    scale_depth,
    start_context,
)
from sar_train.prompts import Insertion, Prompts, split_template


@dataclass(frozen=True)
class TCPConfig:
    """Settings of TCP.

    Attributes:
        context_init: words that the shared context starts from; empty, as in the published configuration, for random.
        n_ctx: M, the paper's 4.
        reduction: the network's inner layer has D / reduction units; the paper's 4 (512 to 128).
        block: in front of which block, from 0 and given for 12, the class-aware tokens enter; the paper's 8.
        share: of the class-aware tokens where they enter; the paper's 1. 0 leaves a plain prompt.
        weight: of the pull to the hand-crafted embeddings; the paper's 8.0.
    """

    context_init: str = ""
    n_ctx: int = 4
    reduction: int = 4
    block: int = 8
    share: float = 1.0
    weight: float = 8.0

    def __post_init__(self) -> None:
        if not 1 <= self.n_ctx <= 64 or not 0 <= self.block <= 11 or not 0 <= self.share <= 1:
            raise ValueError("n_ctx: expected 1 to 64; block: expected 0 to 11; share: expected 0 to 1")
        if self.weight < 0 or self.reduction < 1:
            raise ValueError("weight: expected 0 or more; reduction: expected 1 or more")


@methods.register("tcp")
class TCP(PromptMethod):
    """A shared context (M, W) and the network that makes class-aware tokens."""

    Config = TCPConfig
    schedule = Schedule(epochs=50, learning_rate=2e-3, batch_size=32, optimiser="adam", eps=1e-3)
    paper = "TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model, arXiv 2311.18231"

    @classmethod
    def published(cls, experiment: str, *, shots: int, dataset: str) -> dict[str, Any]:  # noqa: ARG003
        """Half as many epochs for the two largest datasets."""
        return {"epochs": 25} if dataset in ("imagenet", "sun397") else {}

    def __init__(self, config: TCPConfig, setup: Setup) -> None:
        """Start the context and draw the network's weights."""
        nn.Module.__init__(self)
        self.config = config
        tower, size = setup.backbone.text, setup.backbone.embed_dim
        self.context = start_context(setup, config.context_init, config.n_ctx)
        inner = max(1, size // config.reduction)
        self.inner = linear(setup, size, inner)
        self.outer = linear(setup, inner, self.context.numel())
        self.suffix = split_template(setup.template)[1]
        self.block = min(len(tower.blocks) - 1, scale_depth(config.block, len(tower.blocks)) if config.block else 0)

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """The shared context, replaced by each class's own tokens in front of one block."""
        hidden = self.inner(classes.handcrafted)
        tokens = self.outer(hidden * (1.702 * hidden).sigmoid()).unflatten(1, self.context.shape)
        insertions = {self.block: Insertion(tokens, weight=self.config.share)} if self.config.share else {}
        return Prompts(self.context, self.suffix, text=insertions)

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:
        """Cross-entropy and the pull to the hand-crafted embeddings."""
        cosines = (outputs.prompted * outputs.handcrafted).sum(1)
        return super().terms(outputs) | {"knowledge": self.config.weight * (1 - cosines.mean())}
