"""Clean the class names of a request: one spelling for each, and no more than the limits allow."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from sar_infer.errors import ClassNameError
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

LONGEST_TEXT = 256
"""Characters of a name or phrase at most."""
MOST_PHRASES = 256
"""Phrases of a class at most."""
_NOT_UTF_8 = "\ufffd"
"""The character that servers put for bytes in a path that are not UTF-8."""


def clean_name(text: str) -> str:
    """Return a name or phrase in NFC, with single spaces.

    Raises:
        ClassNameError: empty, longer than ``LONGEST_TEXT``, or with control characters or lone surrogates.
    """
    if len(text) <= 4 * LONGEST_TEXT:  # longer text stays too long, and could take hours
        text = unicodedata.normalize("NFC", text)
    shown = repr(text if len(text) <= 40 else text[:40] + "…")
    if len(text) > LONGEST_TEXT:
        raise ClassNameError(f"class name {shown} has {len(text)} characters, {LONGEST_TEXT} are allowed; shorten it")
    if any(unicodedata.category(character) in ("Cc", "Cs") or character == _NOT_UTF_8 for character in text):
        raise ClassNameError(f"class name {shown} contains a control character or a lone surrogate; leave it out")
    if not text.split():
        raise ClassNameError(f"class name {shown} is empty")
    return " ".join(text.split())


def clean_phrases(name: str, phrases: Sequence[str]) -> tuple[str, ...]:
    """Return the phrases of a class, each cleaned like a name.

    Raises:
        ClassNameError: no phrase, more than ``MOST_PHRASES``, or one that cannot be used.
    """
    if not 1 <= len(phrases) <= MOST_PHRASES:
        raise ClassNameError(f"class name {name!r} has {len(phrases)} phrases; expected 1 to {MOST_PHRASES}")
    return tuple(map(clean_name, phrases))


def cleaned(classes: Sequence[str] | Mapping[str, Sequence[str]] | None, limits: Limits) -> dict[str, tuple[str, ...]]:
    """Return phrases by class name; a name without phrases is its own phrase, and of a repeated name the first counts.

    Raises:
        ClassNameError: a name or phrase is empty, too long, or holds control characters.
        Problem: ``too-many-classes``.
    """
    pairs = classes.items() if isinstance(classes, Mapping) else ((name, (name,)) for name in classes or ())
    class_phrases = [(name, tuple(phrases)) for name, phrases in pairs]
    count = sum(len(phrases) for _, phrases in class_phrases)
    if count > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} class names and phrases, got {count}")
    result: dict[str, tuple[str, ...]] = {}
    for name, phrases in class_phrases:
        result.setdefault(clean_name(name), clean_phrases(name, phrases))
    return result
