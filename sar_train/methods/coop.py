"""CoOp: learn M context vectors (Zhou et al., IJCV 2022, arXiv 2109.01134).

The prompt of class c is ``[start][v_1 … v_M][name of c][.][end]``; the loss is the cross-entropy of the scaled cosines
between image features and prompted class embeddings, and nothing else. The name may also stand in the middle of the
context or in front of it, and the context may be one for each class, which then cannot serve other names. The context
is trained in float32 (the reference implementation keeps it in float16).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from sar_train.clip.prompts import Prompts
from sar_train.errors import ConfigError
from sar_train.methods.base import Classes, PromptMethod, Schedule, Setup, methods, normal, start_context


@dataclass(frozen=True)
class CoOpConfig:
    """Settings of CoOp.

    Args:
        context_init: words from which the context starts; empty for random vectors, N(0, 0.02^2). CoCoOp's base-to-new
            scripts start CoOp from "a photo of a" (M = 4), the few-shot paper from random vectors.
        n_ctx: M, if the context starts from random vectors; the paper's 16.
        position: of the name: at the ``end`` of the context, in the ``middle``, or in ``front`` of it.
        class_specific: one context for each class, (C, M, W). It accepts no new names, so it needs ``--no-sar`` (or
            ``--novel none``) and ``--protocol all``, and cannot be exported.
    """

    context_init: str = "a photo of a"
    n_ctx: int = 16
    position: Literal["end", "middle", "front"] = "end"
    class_specific: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.n_ctx <= 64:
            raise ValueError(f"n_ctx: expected 1 to 64, got {self.n_ctx}")


@methods.register("coop")
class CoOp(PromptMethod):
    """Context vectors (M, W), or (C, M, W), around the class name."""

    Config = CoOpConfig
    schedule = Schedule(epochs=200, learning_rate=2e-3, batch_size=32)  # vit_b16_ctxv1.yaml; 50 epochs for ImageNet
    paper = "Learning to Prompt for Vision-Language Models, arXiv 2109.01134"

    config: CoOpConfig

    def __init__(self, config: CoOpConfig, setup: Setup) -> None:
        """Start the context from words or from random vectors."""
        super().__init__(config, setup)
        self.context = start_context(setup, config.context_init, config.n_ctx)
        if config.class_specific:
            shape = (len(self.class_names), *self.context.shape)
            start = self.context.data.expand(shape) if config.context_init else normal(setup, *shape)
            self.context = nn.Parameter(start.clone())

    @classmethod
    def published(cls, experiment: str, *, shots: int, dataset: str) -> dict[str, Any]:
        """Return 50 epochs for ImageNet; for few-shot, 16 random vectors and fewer epochs for fewer shots."""
        if experiment != "few-shot":
            return {"epochs": 50} if dataset == "imagenet" else {}
        epochs = 50 if shots == 1 or dataset == "imagenet" else 100 if 1 < shots <= 4 else 200
        return {"epochs": epochs, "coop": {"context_init": "", "n_ctx": 16}}

    @property
    def transfers(self) -> bool:
        """Return False for class-specific contexts."""
        return not self.config.class_specific

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the learned context around the name, then a full stop."""
        if not self.transfers and tuple(classes.names) != self.class_names:
            raise ConfigError("class-specific contexts exist only for trained classes")
        size = self.context.shape[-2]
        before = {"end": size, "middle": size // 2, "front": 0}[self.config.position]
        after = self.context[..., before:, :] if before < size else None
        return Prompts(self.context[..., :before, :], suffix_context=after)
