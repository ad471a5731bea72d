"""Class names as users give them, tokenizers, and how a name becomes the name encoder's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cleaning = Literal["lower", "whitespace", "canonicalize", "none"]


@dataclass(frozen=True)
class TokenizerSpec:
    """How a class name becomes the name encoder's input.

    The input is ``before``, the tokens of ``prefix + name + suffix``, and the end token. A graph of the form ``prompt``
    contains the prompt, and takes rows of any length. One of the form ``template`` is the text tower as it is: rows are
    padded to ``context_length``.

    Attributes:
        kind: CLIP's byte pair encoding, or a tokenizer of the library ``tokenizers``; its file is in the bundle.
        context_length: Positions of the text tower: ``n_prefix + max_name_tokens + 1``.
        n_prefix: Positions other than those tokens and the end token: ``before``, or start token and context.
        suffix: Text after the name.
        end_token: Id of the token that ends the input.
        max_name_tokens: Most tokens of a name, including prefix and suffix but not the end token.
        form: What the graph is.
        prefix: Text before the name.
        before: Ids of the tokens before the text.
        pad_token: Id of the padding.
        clean: How a text is cleaned, in open_clip's words; ``canonicalize`` also removes punctuation, and
            ``none`` leaves it to the tokenizer.
    """

    kind: Literal["clip-bpe", "tokenizer.json"]
    context_length: int
    n_prefix: int
    suffix: str
    end_token: int
    max_name_tokens: int
    form: Literal["prompt", "template"] = "prompt"
    prefix: str = ""
    before: tuple[int, ...] = ()
    pad_token: int = 0
    clean: Cleaning = "lower"
