"""Names and phrases shared by tables, figures and the summary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from sar_train.report.published import label

SAR = "+sar"
"""Contained in the names of rows with SAR."""


def without_sar(name: str) -> str:
    """Return a row's name without SAR: ``coop (epochs=5)`` for ``coop+sar (epochs=5)``."""
    return name.replace(SAR, "")


def method_name(name: str) -> str:
    """Return a row's name as people write it: ``DePT on KgCoOp + SAR (epochs=5)``; plain ``dept`` is ``DePT``."""
    head, bracket, settings = without_sar(name).partition(" (")
    method = head.replace(":", "-").lower()
    title = label(method)
    return (head if title == method else title) + (" + SAR" if SAR in name else "") + bracket + settings


def shots_text(count: int) -> str:
    """Return a number of shots in words."""
    return {0: "all photos", 1: "1 shot"}.get(count, f"{count} shots")


def slug(text: str) -> str:
    """Return a text as part of a file's name; a digest tells texts apart that are not ASCII."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")
    return plain if text.isascii() else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def seeds_text(seeds: Iterable[int]) -> str:
    """Return ``1–3`` for consecutive numbers, ``1, 3`` for others."""
    numbers = sorted(set(seeds))
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return ``a, b and c``; a long list is cut and counted."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else " and ".join([", ".join(shown[:-1]), shown[-1]]) if shown else "none"


def counted(count: int, noun: str) -> str:
    """Return ``1 run``, ``3 runs``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
