"""The value that a method hands to the towers: prompts as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sar_train.errors import ConfigError


@dataclass(frozen=True)
class DeepPrompt:
    """Vectors that enter a tower before one of its blocks (VPT, Jia et al. 2022; MaPLe, Khattak et al. 2023).

    Attributes:
        vectors: (M, W), the same for every class; in the text tower also (C, M, W), a set for each class of the call.
        mode: ``replace`` puts them instead of M prompt positions: the first after the start token in the text
            tower, the last ones in the image tower. ``append`` adds M positions: after the prompt that is there.
        weight: share of the vectors where they replace; the rest stays of what was there (TCP's w).
    """

    vectors: Tensor
    mode: Literal["replace", "append"] = "replace"
    weight: float = 1.0

    @property
    def per_class(self) -> bool:
        """Return True if each class has vectors of its own."""
        return self.vectors.ndim == 3

    def mix(self, before: Tensor) -> Tensor:
        """Return the vectors that replace ``before`` (…, M, W)."""
        vectors = self.vectors.to(before.dtype)
        return vectors if self.weight == 1 else self.weight * vectors + (1 - self.weight) * before


@dataclass(frozen=True)
class Prompts:
    """The text side ``[start][context][name][suffix context][suffix][end]``, and the vectors that enter deeper layers.

    Attributes:
        context: (M, W) vectors in the space of the token embeddings, M may be 0. They are the same for every class,
            which lets the tower compute them once; or (C, M, W), contexts of each class's own.
        suffix: text after the name.
        suffix_context: (K, W) or (C, K, W) context between name and suffix (CoOp's class token in the middle or
            in front).
        text: what enters the text tower, by block (from 0).
        image: what enters the image tower, by block; before block 0 it is added ahead of the first LayerNorm, without
            positional embedding.
    """

    context: Tensor
    suffix: str = "."
    suffix_context: Tensor | None = None
    text: Mapping[int, DeepPrompt] = field(default_factory=dict)
    image: Mapping[int, DeepPrompt] = field(default_factory=dict)

    @property
    def n_context(self) -> int:
        """Return M, the positions before the name, start token not counted."""
        return self.context.shape[-2]

    @property
    def n_suffix_context(self) -> int:
        """Return K, the context positions after the name."""
        return 0 if self.suffix_context is None else self.suffix_context.shape[-2]

    @property
    def first_class_specific_layer(self) -> int | None:
        """Return the first block before which prompt positions differ between classes; None where they never do."""
        if self.context.ndim == 3:
            return 0
        return min((layer for layer, insertion in self.text.items() if insertion.per_class), default=None)


def insert(positions: Tensor, insertion: DeepPrompt) -> Tensor:
    """Return the prompt positions (…, M, W) of a text tower after an insertion.

    Raises:
        ConfigError: more vectors to replace than there are positions.
    """
    vectors = insertion.vectors
    if insertion.mode == "append":
        return torch.cat([positions, vectors.to(positions.dtype).expand(*positions.shape[:-2], -1, -1)], -2)
    count = vectors.shape[-2]
    if count > positions.shape[-2]:
        raise ConfigError(f"{count} vectors cannot replace {positions.shape[-2]} prompt positions")
    mixed = insertion.mix(positions[..., :count, :])
    return torch.cat([mixed.expand(*positions.shape[:-2], -1, -1), positions[..., count:, :]], -2)


def split_template(template: str) -> tuple[str, str]:
    """Return the text before and after the class name in a hand-crafted template such as ``a photo of a {}.``.

    Raises:
        ConfigError: there is not exactly one ``{}``, or no white space before it (the tokens of a name must not
            depend on the tokens before it).
    """
    parts = template.split("{}")
    if len(parts) != 2:
        raise ConfigError(f"template {template!r}: expected exactly one {{}} for the class name, got {len(parts) - 1}")
    if parts[0] and not parts[0][-1].isspace():
        raise ConfigError(f"template {template!r}: expected a space before {{}}")
    return parts[0].strip(), parts[1].rstrip()


def keep_apart(template: str) -> str:
    """Return the template with a space after ``{}``, so that its punctuation never joins that at the end of a name.

    Tokens are otherwise the same. ``{}.`` becomes ``{} .``; a template that ends with ``{}`` stays.
    """
    after = split_template(template)[1]
    return template.replace("{}", "{} ") if after and not after[0].isspace() else template
