"""Class names as a request gives them, in one spelling each and limited in number."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from sar_infer.errors import ClassNameError
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

LONGEST_TEXT = 256
"""Characters of a name or phrase."""
MOST_PHRASES = 256
"""Phrases of a class."""
_NOT_UTF_8 = "\ufffd"
"""What servers make of bytes in a path that are no text."""


def clean_name(text: str) -> str:
    """A name or phrase in NFC with single spaces.

    Raises:
        ClassNameError: empty, longer than ``LONGEST_TEXT``, or with characters that no name has.
    """
    if len(text) <= 4 * LONGEST_TEXT:  # what is longer stays too long, and could take hours
        text = unicodedata.normalize("NFC", text)
    shown = repr(text if len(text) <= 40 else text[:40] + "…")
    if len(text) > LONGEST_TEXT:
        raise ClassNameError(f"class name {shown} has {len(text)} characters, {LONGEST_TEXT} are allowed; shorten it")
    if any(unicodedata.category(character) in ("Cc", "Cs") or character == _NOT_UTF_8 for character in text):
        raise ClassNameError(f"class name {shown} contains a control character or half a character; leave it out")
    if not text.split():
        raise ClassNameError(f"class name {shown} is empty")
    return " ".join(text.split())


def clean_phrases(name: str, phrases: Sequence[str]) -> tuple[str, ...]:
    """The phrases of a class, each cleaned like a name.

    Raises:
        ClassNameError: none, more than ``MOST_PHRASES``, or one that cannot be used.
    """
    if not 1 <= len(phrases) <= MOST_PHRASES:
        raise ClassNameError(f"class name {name!r} has {len(phrases)} phrases; expected 1 to {MOST_PHRASES}")
    return tuple(map(clean_name, phrases))


def cleaned(classes: Sequence[str] | Mapping[str, Sequence[str]] | None, limits: Limits) -> dict[str, tuple[str, ...]]:
    """Phrases by class name, a name without phrases standing for itself; of a repeated name the first counts.

    Raises:
        ClassNameError: a name or phrase is empty, too long, or holds control characters.
        Problem: ``too-many-classes``.
    """
    pairs = classes.items() if isinstance(classes, Mapping) else ((name, (name,)) for name in classes or ())
    given = [(name, tuple(phrases)) for name, phrases in pairs]
    count = sum(len(phrases) for _, phrases in given)
    if count > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} class names and phrases, got {count}")
    result: dict[str, tuple[str, ...]] = {}
    for name, phrases in given:
        result.setdefault(clean_name(name), clean_phrases(name, phrases))
    return result
