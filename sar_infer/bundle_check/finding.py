"""A line of a verification: a figure then and now, and whether it is within its bound."""

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
class Check:
    """One thing that was checked.

    Attributes:
        what: The figure, in words.
        then: Its value when the bundle was made; None if the bundle does not say.
        now: Its value with what is installed here; None if there is none.
        verdict: ``ok`` within the bound, ``moved`` beyond it; ``changed`` or ``noted`` without a bound.
        bound: The accepted values, in words.
    """

    what: str
    then: Value
    now: Value
    verdict: Verdict
    bound: str = ""


def at_least(label: str, now: float, bound: float, then: float | None = None) -> Check:
    """Judge a value that must not be smaller than the bound; NaN does not pass."""
    return Check(label, then, now, "ok" if now >= bound else "moved", f"at least {bound:.6g}")


def at_most(label: str, now: float, bound: float, then: float | None = None) -> Check:
    """Judge a value that must not be larger than the bound; NaN does not pass."""
    return Check(label, then, now, "ok" if now <= bound else "moved", f"at most {bound:.6g}")


def same(label: str, now: str, then: str) -> Check:
    """Judge a word that must be the same."""
    return Check(label, then, now, "ok" if now == then else "moved", "the same")


def reasons(findings: Sequence[Check]) -> list[str]:
    """Say of each finding that is beyond its bound what it is, its value, and the bound."""
    return [f"{line.what}: {_text(line.now)}, expected {line.bound}" for line in findings if line.verdict == "moved"]


def plain(finding: Check) -> dict[str, Any]:
    """Return the fields for JSON, with null in place of a number that is not finite."""
    fields = dataclasses.asdict(finding)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}


def table(findings: Sequence[Check]) -> str:
    """Return lines of text with columns for then, now, the difference, and the verdict with its bound."""
    rows = [COLUMNS, *(_cells(finding) for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _cells(finding: Check) -> tuple[str, ...]:
    then, now = finding.then, finding.now
    numbers = isinstance(then, int | float) and isinstance(now, int | float)
    moved = f"{now - then:+.2g}" if numbers else ""  # type: ignore[operator]
    verdict = finding.verdict + (f" ({finding.bound})" if finding.bound else "")
    return finding.what, _text(then), _text(now), moved, verdict


def _text(value: Value) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.7g}"
