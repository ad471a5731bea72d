"""One remark on a class name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]
"""``error``: the encoder cannot take it; ``warning``: look at it before you rely on it; ``info``: good to know."""
Kind = Literal[
    "unusable",
    "too-long",
    "odd-characters",
    "odd-tokens",
    "wording",
    "duplicate",
    "near-duplicate",
    "known-photo",
    "shared-photo",
    "far-photo",
    "confused",
    "missed",
]


@dataclass(frozen=True)
class Finding:
    """The remark of a rule on a class name.

    Attributes:
        kind: The rule.
        severity: How serious it is.
        name: The class; empty if the remark is about all of them.
        message: One sentence.
        suggestion: Another wording to try, if the rule has one.
    """

    kind: Kind
    severity: Severity
    name: str
    message: str
    suggestion: str | None = None


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return errors, then warnings, then infos, each in the order in which they came."""
    order: tuple[Severity, ...] = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: order.index(finding.severity))
