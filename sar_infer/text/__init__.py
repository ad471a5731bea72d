"""Class names as users give them, CLIP's tokenizer, and how a name becomes the name encoder's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TokenizerSpec:
    """How a class name becomes the name encoder's input: tokens of ``name + suffix``, the end token, 0 as padding.

    Attributes:
        kind: CLIP's byte pair encoding, whose merges are in the bundle.
        context_length: Positions of the text tower: ``n_prefix + max_name_tokens + 1``.
        n_prefix: Positions that the graph fills itself: start token and context, before and after the name.
        suffix: Text after the name.
        end_token: Id of the token that ends the input.
        max_name_tokens: Most tokens of a name, including the suffix but not the end token.
    """

    kind: Literal["clip-bpe"]
    context_length: int
    n_prefix: int
    suffix: str
    end_token: int
    max_name_tokens: int
