"""Class names as a request gives them, in one spelling each and limited in number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_infer.server.bank_changes import clean_name, clean_phrases
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits


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
