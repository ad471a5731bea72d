"""PromptSRC: deep prompts in both towers that regulate themselves (Khattak et al., ICCV 2023, arXiv 2307.06948).

Independent prompts for text and image, M tokens each in the first J layers (placed as MaPLe's are). With student w, f
and the untouched tower's v, f0 (unit rows; v is the mean over 60 templates)::

    loss = CE + 25 mean|w - v| + 10 mean|f - f0| + KL,   KL = 1 / (B C) * sum over images of KL(q0 || p)

means over all elements, q0 and p the softmaxes of scaled cosines of the teacher and the student. The result is the
average of the parameters after each epoch, weighted by a Gaussian over the epochs. As in muzairkhattak/PromptSRC, which
averages the whole float16 model; here only prompts are averaged, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import kl_div

from sar_train.clip.backbone import TEMPLATES
from sar_train.clip.prompts import DeepPrompt, Prompts
from sar_train.methods.base import (
    Classes,
    ForwardOutputs,
    PromptMethod,
    Schedule,
    Setup,
    methods,
    normal,
    scale_depth,
    start_context,
)

FIRST = "a photo of a {}."
TEACHER = (FIRST, *[template for template in TEMPLATES if template != FIRST][:59])
"""The reference's 60 templates."""


@dataclass(frozen=True)
class PromptSRCConfig:
    """Settings of PromptSRC.

    Args:
        context_init: words from which the text context starts; empty for random vectors.
        n_ctx: text vectors in each layer; the paper's 4.
        n_ctx_image: image vectors in each layer; the paper's 4.
        depth_text: J for towers of 12 layers, scaled to others; the paper's 9 (3 for cross-dataset transfer).
        depth_image: the same of the image tower.
        text_weight: of the term of the text tower; the paper's 25.
        image_weight: of the term of the image tower; the paper's 10.
        kl_weight: of KL; the paper's 1.
        mean: of the Gaussian, for 20 epochs; with ``--epochs`` set both (the paper, for 50: 30 / 30 or 45 / 5).
        sigma: of the Gaussian.
    """

    context_init: str = "a photo of a"
    n_ctx: int = 4
    n_ctx_image: int = 4
    depth_text: int = 9
    depth_image: int = 9
    text_weight: float = 25.0
    image_weight: float = 10.0
    kl_weight: float = 1.0
    mean: float = 15.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (1 <= self.depth_text <= 12 and 1 <= self.depth_image <= 12):
            raise ValueError("depth_text, depth_image: expected 1 to 12")
        if min(self.n_ctx, self.n_ctx_image) < 1 or self.sigma <= 0:
            raise ValueError("n_ctx, n_ctx_image: expected 1 or more; sigma: expected more than 0")


@methods.register("promptsrc")
class PromptSRC(PromptMethod):
    """Text prompts (M, W) and image prompts (M', W') for several layers each."""

    Config = PromptSRCConfig
    schedule = Schedule(epochs=20, learning_rate=2.5e-3, batch_size=4)
    paper = "Self-regulating Prompts: Foundational Model Adaptation without Forgetting, arXiv 2307.06948"
    sar_weight = 0.0
    towers = ("text", "image")

    config: PromptSRCConfig

    @classmethod
    def published(cls, experiment: str, *, shots: int, dataset: str) -> dict[str, Any]:  # noqa: ARG003
        """Return shallower prompts for transfer; 50 epochs for few-shot, and an average that fits them."""
        if experiment in ("cross-dataset", "domain-generalisation"):
            return {"promptsrc": {"depth_text": 3, "depth_image": 3, "mean": 6.0, "sigma": 10.0}}
        if experiment == "few-shot":
            late = dataset in ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat")
            mean, sigma = (45.0, 5.0) if late else (30.0, 30.0)
            return {"epochs": 50, "promptsrc": {"mean": mean, "sigma": sigma}}
        return {}

    def __init__(self, config: PromptSRCConfig, setup: Setup) -> None:
        """Start the first text prompt from words, everything else from N(0, 0.02^2)."""
        super().__init__(config, setup)
        self._backbone = setup.backbone
        text, image = setup.backbone.text, setup.backbone.image_tower("promptsrc")
        self.context = start_context(setup, config.context_init, config.n_ctx)
        n_text = min(config.n_ctx, len(self.context))
        n_layers = scale_depth(config.depth_text, len(text.blocks)), scale_depth(config.depth_image, len(image.blocks))
        self.text = nn.ParameterList(normal(setup, n_text, text.width) for _ in range(1, n_layers[0]))
        self.image = nn.ParameterList(normal(setup, config.n_ctx_image, image.width) for _ in range(n_layers[1]))

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return text and image prompts, the same for all classes."""
        first, *deeper = self.image
        return Prompts(
            self.context,
            text={layer: DeepPrompt(vectors) for layer, vectors in enumerate(self.text, 1)},
            image={0: DeepPrompt(first, "append")} | {k: DeepPrompt(vectors) for k, vectors in enumerate(deeper, 1)},
        )

    @cached_property
    def teacher(self) -> Tensor:
        """Return v, (C, D) of the training classes: the normalised mean over 60 templates of un-normalised rows."""
        return self._backbone.ensemble(self.class_names, TEACHER, unit=False)

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:
        """Return the cross-entropy and the three terms that hold student and untouched CLIP together."""
        config, scale = self.config, outputs.scale
        untouched = (scale * outputs.frozen_images @ self.teacher.T).log_softmax(1)
        divergence = kl_div(outputs.logits.log_softmax(1), untouched, reduction="sum", log_target=True)
        return super().terms(outputs) | {
            "text_l1": config.text_weight * (outputs.prompted - self.teacher).abs().mean(),
            "image_l1": config.image_weight * (outputs.images - outputs.frozen_images).abs().mean(),
            "logits_kl": config.kl_weight * divergence / outputs.logits.numel(),
        }

    def averaging(self, epochs: int) -> Sequence[float]:
        """Return the normal density at each epoch, normalised (in logarithms: a far mean leaves the nearest epoch)."""
        logs = [-(((epoch - self.config.mean) / self.config.sigma) ** 2) / 2 for epoch in range(1, epochs + 1)]
        powers = [math.exp(value - max(logs)) for value in logs]
        return [power / sum(powers) for power in powers]
