"""Figures in ``quality.tables``: how many photos were learned and tested, and what a class added later may expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sar_infer.bundle.manifest import Quality

PHOTOS = "photos"
"""The table of numbers of photos: ``learned``, and those that ``base`` and ``new`` accuracies are from."""
ADDED = "added classes"
"""The table with the arguments of `expectation`."""
_FEW_CLASSES = 20


def photos_learned(quality: Quality) -> str | None:
    """Return how many photos were learned, in words; None if the bundle does not say."""
    count = quality.tables.get(PHOTOS, {}).get("learned")
    if count:
        return f"{count:,} photos"
    return f"up to {quality.shots:,} photos of each class" if quality.shots else None


def photos_evaluated(quality: Quality) -> int | None:
    """Return how many photos the accuracy on trained classes is from; None if the bundle does not say."""
    return quality.tables.get(PHOTOS, {}).get("base") or None


def expectation(entry: Mapping[str, Any]) -> str:
    """Return the line on what a class added later may expect.

    Args:
        entry: ``statistics`` of a run's record, or the table `ADDED` of a bundle: ``defaults``, why nothing was
            measured, or None; ``classes``, how many were left out in turn; ``expected``, for each number of ``photos``
            the ``accuracy`` with its 95 % interval from ``low`` to ``high``, in per cent.
    """
    if entry["defaults"]:
        return (
            f"a class that you add later: nothing could be measured ({entry['defaults']}), so class statistics have "
            "their defaults"
        )
    items = {item["photos"]: item for item in entry["expected"]}
    by_name, photos = items.pop(0), [n for n in (1, 2, 4) if n in items]
    line = f"a class you add by its name is found in about {by_name['accuracy']:.0f} % of cases"
    if photos:
        numbers = ", ".join(map(str, photos))
        line += f", with {numbers} photo{'s' if photos != [1] else ''} in "
        line += ", ".join(f"{items[n]['accuracy']:.0f}" for n in photos) + " %"
    shown = [by_name, *(items[n] for n in photos)]
    count = entry["classes"]
    line += f" (estimate for {count} added classes and photos of the same kind, from trained classes left out in turn; "
    line += f"95 % interval for the mean of {count} more classes: "
    line += ", ".join(f"{item['low']:.0f}-{item['high']:.0f}" for item in shown) + ")"
    if count < _FEW_CLASSES:
        line += f"; with {count} classes this is a rough guide"
    return line
