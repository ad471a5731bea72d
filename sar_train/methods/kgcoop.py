"""KgCoOp: CoOp held near the hand-crafted prompt (Yao, Zhang, Xu, CVPR 2023, arXiv 2303.13283).

CoOp's prompt and cross-entropy, and a pull of each prompted class embedding w_c to the hand-crafted one v_c::

    loss = CE + weight * (1 - mean over c of cos(w_c, v_c))

The paper writes a squared Euclidean distance; on unit vectors |w - v|^2 = 2 (1 - cos). As in htyao89/KgCoOp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sar_train.clip.prompts import Prompts
from sar_train.methods.base import (
    Classes,
    ForwardOutputs,
    PromptMethod,
    Schedule,
    Setup,
    methods,
    start_context,
)


@dataclass(frozen=True)
class KgCoOpConfig:
    """Settings of KgCoOp.

    Args:
        context_init: words from which the context starts; empty for random vectors. The authors' code uses
            "a photo of a" regardless of the setting.
        n_ctx: M, if the context starts from random vectors.
        weight: of the pull; the paper's 8.
    """

    context_init: str = "a photo of a"
    n_ctx: int = 4
    weight: float = 8.0

    def __post_init__(self) -> None:
        if not 1 <= self.n_ctx <= 64:
            raise ValueError(f"n_ctx: expected 1 to 64, got {self.n_ctx}")
        if self.weight < 0:
            raise ValueError(f"weight: expected 0 or more, got {self.weight}")


@methods.register("kgcoop")
class KgCoOp(PromptMethod):
    """Context vectors (M, W) in front of the class name."""

    Config = KgCoOpConfig
    schedule = Schedule(epochs=100, learning_rate=2e-3, batch_size=128)  # vit_b16_ep100_ctxv1.yaml
    paper = "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, arXiv 2303.13283"

    config: KgCoOpConfig

    @classmethod
    def published(cls, experiment: str, *, shots: int, dataset: str) -> dict[str, Any]:  # noqa: ARG003
        """Return batches of 32 for few-shot runs of up to 4 shots (htyao89/KgCoOp#4)."""
        return {"batch_size": 32} if experiment == "few-shot" and 1 <= shots <= 4 else {}

    def __init__(self, config: KgCoOpConfig, setup: Setup) -> None:
        """Start the context from words or from random vectors."""
        super().__init__(config, setup)
        self.context = start_context(setup, config.context_init, config.n_ctx)

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the learned context, then the name and a full stop."""
        return Prompts(self.context)

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:
        """Return the cross-entropy and the pull to the hand-crafted embeddings."""
        cosines = (outputs.prompted * outputs.handcrafted).sum(1)
        return super().terms(outputs) | {"knowledge": self.config.weight * (1 - cosines.mean())}
