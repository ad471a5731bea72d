"""Class names that come over the network: one spelling of each, no control characters, limited in length and number."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

Phrases = dict[str, tuple[str, ...]]


def clean(text: str, limits: Limits) -> str:
    """A name or phrase in Unicode NFC, without space around it.

    Raises:
        Problem: ``bad-class-name``, where it is empty, too long or holds control characters.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not text:
        raise Problem("bad-class-name", "a class name or phrase is empty")
    if len(text) > limits.characters:
        raise Problem(
            "bad-class-name", f"expected class names of at most {limits.characters} characters, got {len(text)}"
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise Problem("bad-class-name", f"a class name holds control characters: {text!r:.80}")
    return text


def cleaned(classes: Sequence[str] | Mapping[str, Sequence[str]] | None, limits: Limits) -> Phrases:
    """Phrases by class name, a name without phrases standing for itself.

    Raises:
        Problem: ``bad-class-name``, or ``too-many-classes``.
    """
    if isinstance(classes, Mapping):
        given = {name: tuple(phrases) for name, phrases in classes.items()}
    else:
        given = {name: (name,) for name in classes or ()}
    count = sum(map(len, given.values()))
    if count > limits.classes:
        raise Problem("too-many-classes", f"expected at most {limits.classes} class names and phrases, got {count}")
    result: Phrases = {}
    for name, phrases in given.items():
        if not phrases:
            raise Problem("bad-class-name", f"class {name!r:.80} has an empty list of phrases")
        result.setdefault(clean(name, limits), tuple(clean(phrase, limits) for phrase in phrases))
    return result
