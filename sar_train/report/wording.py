"""Names and phrases shared by tables, figures and the summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sar_train.report.published import label, method_key
from sar_train.report.results import SAR, Result
from sar_train.report.scores import plain


def method_name(name: str) -> str:
    """Return a row's name as people write it: ``DePT on KgCoOp + SAR (epochs=5)``."""
    head, bracket, rest = plain(name).partition(" (")
    known = label(method_key(head))
    shown = head if known == method_key(head) else known
    return shown + (" + SAR" if SAR in name else "") + bracket + rest


def seeds_of(seeds: Iterable[int]) -> str:
    """Return ``1–3`` for consecutive numbers, ``1, 3`` for others."""
    found = sorted(set(seeds))
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"{found[0]}–{found[-1]}"
    return ", ".join(map(str, found))


def spread_note(runs: Sequence[Result]) -> str:
    """Explain what is shown beside a mean."""
    if len({run.seed for run in runs}) < 2:
        return "One seed: no deviation can be given."
    return "Mean ± standard deviation over seeds, in the columns that give one."


def uneven_sides(method: str, without: Sequence[Result], with_sar: Sequence[Result]) -> str:
    """Warn if a method was run without SAR and with it, but not on the same seeds; else return an empty text."""
    seeds = [{run.seed for run in side} for side in (without, with_sar)]
    return f"{method}: the two sides are of different seeds" if all(seeds) and seeds[0] != seeds[1] else ""


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return ``a, b and c``; a long list is cut and counted."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else " and ".join([", ".join(shown[:-1]), shown[-1]]) if shown else "none"


def counted(count: int, noun: str) -> str:
    """Return ``1 run``, ``3 runs``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
