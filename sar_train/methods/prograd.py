"""ProGrad: update only where zero-shot knowledge agrees (Zhu et al., ICCV 2023, arXiv 2205.14865).

CoOp's prompt. Next to the cross-entropy's gradient g is that of a distillation from the zero-shot answer on the
same view, g_kl, which is never added. For each parameter tensor, with u = g_kl / |g_kl|::

    g - lambda * (g . u) u    where g . g_kl < 0, else g

As in BeierZhu/Prompt-align. Both the zero-shot teacher and the start of the context have the kind of thing in front
(``a type of pet, a photo of a {}.``). What a regulariser adds belongs to g (the paper has none: our choice).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sar_train.clip.prompts import Prompts, split_template
from sar_train.methods.base import Classes, ForwardOutputs, PromptMethod, Schedule, Setup, later, methods

FIFTY_ON = "imagenet"
"""The dataset that the reference trains on for 50 epochs under every protocol."""
TEMPLATES = {"dtd": "a texture of {}."}
"""The reference's templates by dataset, where they are not the dataset's with the kind of thing in front."""


@dataclass(frozen=True)
class ProGradConfig:
    """Settings of ProGrad.

    Args:
        n_ctx: M; the words of the hand-crafted template fill the right end, zeros the left.
        count: tokens of the template that are learned. ``words``, as in the authors' code: as many as it has words. A
            comma is a token too, so the last word of ``a type of pet, a photo of a`` is not learned. ``tokens``: all.
        weight: lambda, the share of the opposing component that is removed; the paper's 1.
        temperature: of the distillation; the paper's 1.
    """

    n_ctx: int = 16
    count: Literal["words", "tokens"] = later("words")
    weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.n_ctx <= 64:
            raise ValueError(f"n_ctx: expected 1 to 64, got {self.n_ctx}")
        if self.weight < 0 or self.temperature <= 0:
            raise ValueError("weight: expected 0 or more; temperature: expected more than 0")


@methods.register("prograd")
class ProGrad(PromptMethod):
    """Context vectors (M, W) in front of the class name, and a projection of their gradient.

    The schedule is that of the reference's base-to-new script, which has 4 shots on RN50.
    """

    Config = ProGradConfig
    schedule = Schedule(epochs=100, learning_rate=2e-3, batch_size=32)
    paper = "Prompt-aligned Gradient for Prompt Tuning, arXiv 2205.14865"
    reference_terms = ("zero_shot_kl",)
    sar_weight = 1.0

    config: ProGradConfig
    rest: Tensor

    @classmethod
    def published(cls, experiment: str, *, shots: int, dataset: str) -> dict[str, Any]:
        """Return epochs by shots, and the smaller lambda of three datasets, as the reference's README has them."""
        if dataset == FIFTY_ON:
            return {"epochs": 50}
        if experiment != "few-shot":
            return {}
        epochs = 50 if shots == 1 else 100 if 1 < shots <= 4 else 200
        softer = shots in (8, 16) and dataset in ("oxford_flowers", "dtd", "eurosat")
        return {"epochs": epochs} | ({"prograd": {"weight": 0.8}} if softer else {})

    @classmethod
    def settle(cls, config: ProGradConfig, template: str, dataset: str | None) -> tuple[ProGradConfig, str]:
        """Move the words after the name to the front, for the teacher too."""
        return config, kind_in_front(TEMPLATES.get(dataset or "", template))

    def __init__(self, config: ProGradConfig, setup: Setup) -> None:
        """Lay the template's words at the right end of the context."""
        super().__init__(config, setup)
        tower, text = setup.backbone.text, opening(setup.template)
        tokens = tower.embed_text(text)
        n_learned = len(text.split()) if config.count == "words" else len(tokens)
        learned = tokens[:n_learned][-config.n_ctx :]
        start = torch.zeros(config.n_ctx, tower.width, device=setup.backbone.device)
        start[config.n_ctx - len(learned) :] = learned
        self.context = nn.Parameter(start)
        self.register_buffer("rest", tokens[n_learned:], persistent=len(tokens) > n_learned)

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the learned context, words that stay as they are, then the name and a full stop."""
        return Prompts(torch.cat([self.context, self.rest]))

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:
        """Return the cross-entropy, and the distillation: -T^2 mean over images of sum over c of q_c log p_c."""
        heat = self.config.temperature
        teacher = (outputs.scale * outputs.frozen_images @ outputs.handcrafted.T / heat).softmax(1)
        student = (outputs.logits / heat).log_softmax(1)
        return super().terms(outputs) | {"zero_shot_kl": -(heat**2) * (teacher * student).sum(1).mean()}

    def project_gradient(self, gradient: Tensor, reference: Tensor) -> Tensor:
        """Remove the part that points against the zero-shot gradient."""
        dot = (gradient * reference).sum()
        if dot >= 0:
            return gradient
        return gradient - self.config.weight * dot / reference.square().sum() * reference


def opening(template: str) -> str:
    """Return the template's words as a text before the name; those after the name go first, as in the reference.

    ``a photo of a {}, a type of pet.`` becomes ``a type of pet, a photo of a``.
    """
    before, after = split_template(template)
    return ", ".join(words for words in (after.strip(" ,."), before) if words)


def kind_in_front(template: str) -> str:
    """Move the words after the name to the front; a template without such words stays as it is.

    ``a photo of a {}, a type of pet.`` becomes ``a type of pet, a photo of a {}.``.
    """
    return f"{opening(template)} {{}}." if split_template(template)[1].strip(" ,.") else template
