"""A line of a verification: what was, what is, and whether that is within its bound."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Value = str | float | None
Verdict = Literal["ok", "moved", "changed", "noted"]
COLUMNS = ("", "then", "now", "moved by", "verdict")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: In words.
        then: When the bundle was made; None where it does not say.
        now: With what is installed here; None where it cannot be had.
        verdict: ``ok`` or ``moved``: within the bound, or beyond it. Without a bound ``changed`` and ``noted``.
        bound: What is accepted.
    """

    what: str
    then: Value
    now: Value
    verdict: Verdict
    bound: str = ""


def at_least(what: str, now: float, bound: float, then: float | None = None) -> Finding:
    """A value that must not be smaller; NaN does not pass."""
    return Finding(what, then, now, "ok" if now >= bound else "moved", f"at least {bound:.6g}")


def at_most(what: str, now: float, bound: float, then: float | None = None) -> Finding:
    """A value that must not be larger; NaN does not pass."""
    return Finding(what, then, now, "ok" if now <= bound else "moved", f"at most {bound:.6g}")


def same(what: str, now: str, then: str) -> Finding:
    """A word that must be the same."""
    return Finding(what, then, now, "ok" if now == then else "moved", "the same")


def plain(finding: Finding) -> dict[str, Any]:
    """The fields for JSON, which has no number that is not finite: null in its place."""
    fields = dataclasses.asdict(finding)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}


def table(findings: Sequence[Finding]) -> str:
    """Lines for people, a column each for then, now, the difference, and the verdict with its bound."""
    rows = [COLUMNS, *(_cells(finding) for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _cells(finding: Finding) -> tuple[str, ...]:
    then, now = finding.then, finding.now
    numbers = isinstance(then, int | float) and isinstance(now, int | float)
    moved = f"{now - then:+.2g}" if numbers else ""  # type: ignore[operator]
    verdict = finding.verdict + (f" ({finding.bound})" if finding.bound else "")
    return finding.what, _text(then), _text(now), moved, verdict


def _text(value: Value) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.7g}"
