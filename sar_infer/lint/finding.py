"""One thing to say about a class name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]
"""``error``: the encoder cannot take it; ``warning``: look at it before you rely on it; ``info``: good to know."""
Kind = Literal[
    "unusable", "too-long", "odd-characters", "odd-tokens", "wording", "duplicate", "near-duplicate", "moved", "skipped"
]


@dataclass(frozen=True)
class Finding:
    """What a rule says of a name.

    Attributes:
        kind: The rule.
        severity: How bad it is.
        name: The class; empty where it is about the whole.
        message: One sentence.
        suggestion: A wording to try in its place, where the rule supports one.
    """

    kind: Kind
    severity: Severity
    name: str
    message: str
    suggestion: str | None = None


def told_apart(one: float, two: float) -> tuple[str, str]:
    """Two numbers with the digits that it takes to see which is larger, three at least."""
    for digits in range(3, 18):
        texts = f"{one:#.{digits}g}", f"{two:#.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then what is good to know, each in the order in which they came."""
    order: tuple[Severity, ...] = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: order.index(finding.severity))
