"""Rules that see a name as the encoder does: as tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sar_infer.errors import ClassNameError
from sar_infer.lint.finding import Finding
from sar_infer.lint.wording import glued
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import Tokenizer, clean, encode_name

_PARTS = re.compile(r"[^\W\d_]+")
_MOST_TOKENS = 6
_LEAST_LETTERS = 2.0
"""Letters a token, below which a word is in pieces; a word that CLIP knows is one token, a rare one two or three."""
_SHORT = 4


def unusable(name: str, text: str, tokenizer: Tokenizer, spec: TokenizerSpec) -> Finding | None:
    """Why the encoder cannot take a text, None where it can.

    Args:
        name: The class.
        text: The name, or the phrase that stands for it.
        tokenizer: Of the bundle.
        spec: How names become tokens.
    """
    try:
        encode_name(tokenizer, spec, text)
    except ClassNameError as error:
        fitting = _fitting(text, tokenizer, spec)
        words = clean(text.replace("_", " ")).split()
        if fitting == len(words):
            return Finding("unusable", "error", name, str(error))
        lost = " ".join(words[fitting:])
        message = f"{spec.max_name_tokens} tokens fit, so this would be lost: {lost[:60]!r}{'…' if lost[60:] else ''}"
        return Finding("too-long", "error", name, message, " ".join(words[:fitting]) or None)
    return None


def odd_tokens(name: str, text: str, tokenizer: Tokenizer) -> Iterator[Finding]:
    """Words that the vocabulary does not have, and words that were glued together.

    Args:
        name: The class.
        text: The name, or the phrase that stands for it.
        tokenizer: Of the bundle.
    """
    apart = glued(text)
    if apart and any(len(tokenizer.encode(word)) > 1 for word in text.split() if glued(word)):
        yield Finding("odd-tokens", "warning", name, "is read in lower case, as one word; put spaces", apart)
    broken: dict[str, int] = {}
    for word in _PARTS.findall(text):
        count = len(tokenizer.encode(word))
        if count >= _MOST_TOKENS or (len(word) >= _SHORT and len(word) < _LEAST_LETTERS * count):
            broken[word[:30]] = count
    if broken:
        shown = ", ".join(f"{word!r} into {count}" for word, count in [*broken.items()][:3])
        message = f"the vocabulary breaks {shown} tokens; a commoner word or a phrase may do better"
        yield Finding("odd-tokens", "warning" if max(broken.values()) >= _MOST_TOKENS else "info", name, message)


def _fitting(text: str, tokenizer: Tokenizer, spec: TokenizerSpec) -> int:
    """How many words from the first on fit; all of them where length is not what is wrong."""
    room = spec.max_name_tokens - len(tokenizer.encode(spec.suffix))
    words = clean(text.replace("_", " ")).split()
    for count, word in enumerate(words):
        room -= len(tokenizer.encode(word))
        if room < 0:
            return count
    return len(words)
