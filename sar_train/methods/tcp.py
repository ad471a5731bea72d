"""TCP: prompts from the class's own hand-crafted embedding (Yao, Zhang, Xu, CVPR 2024, arXiv 2311.18231).

A small network turns the hand-crafted unit embedding v_c into class-aware tokens T_c (M, W): Linear, QuickGELU, Linear.
M shared context vectors run through the first blocks; in front of one block (8 of CLIP's 12) T_c takes their place. The
loss is KgCoOp's. New names work because v_c can be computed for any name. Teacher and student have a template each, and
the student's may have words between the vectors and the name. As in htyao89/Textual-based_Class-aware_prompt_tuning.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sar_train.clip.prompts import DeepPrompt, Prompts, keep_apart, split_template
from sar_train.methods.base import (
    Classes,
    ForwardOutputs,
    PromptMethod,
    Schedule,
    Setup,
    later,
    linear,
    methods,
    scale_depth,
    start_context,
)

PAIRS = {
    "imagenet": ("a photo of a {}.", "{}."),
    "caltech101": ("a photo of a {}.", "{}."),
    "oxford_pets": ("a photo of a {}, a type of pet.", "{}, a type of pet."),
    "stanford_cars": ("a photo of a {}.", "{}, a type of car"),
    "oxford_flowers": ("a photo of a {}, a type of flower.", "{}, a type of flower."),
    "food101": ("a photo of a {}, a type of food.", "{}, a type of food."),
    "fgvc_aircraft": ("a photo of an aircraft {}.", "{}, a type of aircraft."),
    "sun397": ("a photo of a {}.", "{}."),
    "dtd": ("a photo of a {}, a type of texture.", "{} texture."),
    "eurosat": ("a centered satellite photo of {}.", "{}."),
    "ucf101": ("a photo of a person doing {}.", "person doing {}."),
}
"""The reference's templates by dataset: the teacher's, and the student's after its context vectors."""


@dataclass(frozen=True)
class TCPConfig:
    """Settings of TCP.

    Args:
        context_init: words from which the shared context starts; empty for random vectors, as the authors publish it.
        n_ctx: M; the paper's 4.
        student: text after the context, with ``{}`` for the name, such as ``person doing {}.``. Empty: the authors' for
            the dataset, else the template from ``{}`` on.
        reduction: the network's hidden layer has D / reduction units; the paper's 4.
        block: the block that the tokens enter, of 12 counted from 0; the paper's 8.
        share: share of the class-aware tokens in the mix; the paper's 1. 0 leaves a plain prompt.
        weight: of the pull; the paper's 8.
    """

    context_init: str = ""
    n_ctx: int = 4
    student: str = later("")
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

    config: TCPConfig
    words: Tensor

    @classmethod
    def published(cls, experiment: str, *, shots: int, dataset: str) -> dict[str, Any]:  # noqa: ARG003
        """Return half as many epochs for the two largest datasets."""
        return {"epochs": 25} if dataset in ("imagenet", "sun397") else {}

    @classmethod
    def settle(cls, config: TCPConfig, template: str, dataset: str | None) -> tuple[TCPConfig, str]:
        """Choose the pair of templates, the user's or the reference's for the dataset.

        Where the texts after the name differ, both get a space in front: the tokens of a name are then its own in
        either prompt, and the exported graph can exchange one text for the other.
        """
        teacher, student = PAIRS.get(dataset or "", (template, ""))
        student = config.student or student or student_of(teacher)
        if split_template(student)[1] != split_template(teacher)[1]:
            teacher, student = keep_apart(teacher), keep_apart(student)
        return dataclasses.replace(config, student=student), teacher

    def __init__(self, config: TCPConfig, setup: Setup) -> None:
        """Start the context and draw the network's weights."""
        super().__init__(config, setup)
        tower, size = setup.backbone.text, setup.backbone.embed_dim
        self.context = start_context(setup, config.context_init, config.n_ctx)
        inner = max(1, size // config.reduction)
        self.inner = linear(setup, size, inner)
        self.outer = linear(setup, inner, self.context.numel())
        words, self.suffix = split_template(config.student or student_of(setup.template))
        self.register_buffer("words", tower.embed_text(words), persistent=False)
        self.block = min(len(tower.blocks) - 1, scale_depth(config.block, len(tower.blocks)) if config.block else 0)

    def prompts(self, classes: Classes, image: Tensor | None = None) -> Prompts:  # noqa: ARG002
        """Return the shared context, which each class's own tokens replace before one block."""
        hidden = self.inner(classes.handcrafted)
        tokens = self.outer(hidden * (1.702 * hidden).sigmoid()).unflatten(1, self.context.shape)
        insertions = {self.block: DeepPrompt(tokens, weight=self.config.share)} if self.config.share else {}
        return Prompts(torch.cat([self.context, self.words]), self.suffix, text=insertions)

    def terms(self, outputs: ForwardOutputs) -> dict[str, Tensor]:
        """Return the cross-entropy and the pull to the hand-crafted embeddings."""
        cosines = (outputs.prompted * outputs.handcrafted).sum(1)
        return super().terms(outputs) | {"knowledge": self.config.weight * (1 - cosines.mean())}


def student_of(template: str) -> str:
    """Return the student's template where only the teacher's is given: the name, and what follows it there."""
    return "{}" + split_template(template)[1]
