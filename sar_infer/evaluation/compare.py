"""Bundles compared on the same photos: which is best, which is level with it and cheaper."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sar_infer.evaluation.curve import Curve
from sar_infer.measures import Difference, paired_difference

_CHEAPER = 0.9
"""Share of the time of the best bundle below which another is cheaper."""


@dataclass(frozen=True)
class Cost:
    """What a bundle costs on this machine.

    Attributes:
        one_ms: Milliseconds for one photo, decoding included.
        batch_ms: Milliseconds a photo in batches of 16.
        memory_mib: Most memory of a process that classifies; None if the system does not report it.
        disk_mib: Size of the bundle.
    """

    one_ms: float
    batch_ms: float
    memory_mib: float | None
    disk_mib: float


@dataclass(frozen=True)
class Candidate:
    """A bundle, measured on photos.

    Attributes:
        name: Its name, and the precision unless that is float32.
        licences: Licences of its parts.
        curve: Accuracy by number of photos, and AUROC of *unknown*.
        cost: What it costs.
        difference: Its accuracy less that of the best one; None for that one.
    """

    name: str
    licences: Mapping[str, str]
    curve: Curve
    cost: Cost
    difference: Difference | None = None


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates with their difference to the best, the best first; all must have the same photos."""
    best, *others = sorted(candidates, key=lambda one: (-one.curve.accuracy.share, one.cost.batch_ms))
    flags = best.curve.right[-1] > 0
    differences = [paired_difference(one.curve.right[-1] > 0, flags) for one in others]
    return [best, *map(lambda one, of: dataclasses.replace(one, difference=of), others, differences)]


def verdict(order: Sequence[Candidate]) -> Iterator[str]:
    """Yield which candidate is best, which are level with it and cheaper, and how many photos would tell them apart."""
    best, *others = order
    level = [(one, of) for one in others if (of := one.difference) and of.level]
    if others and not level:
        yield f"{best.name} is best: the others are below it by more than chance explains"
    for one, of in level:
        times = one.cost.batch_ms / best.cost.batch_ms
        cheaper = f" and takes {times:.0%} of its time" if times < _CHEAPER else ""
        enough = (
            "with equal answers" if of.enough is None else f"about {rounded(of.enough):,} photos would tell them apart"
        )
        yield f"{one.name} is level with {best.name}{cheaper}: {of}; {enough}"
    if level:
        cheapest = min(best, *(one for one, _ in level), key=lambda one: one.cost.batch_ms)
        yield f"take {cheapest.name}: none is better by more than chance explains, and it is the fastest of these"


def rounded(photos: int) -> int:
    """Return a number of photos with two significant digits, rounded up."""
    unit: int = 10 ** max(0, len(str(photos)) - 2)
    return -(-photos // unit) * unit


def comparison_content(order: Sequence[Candidate]) -> dict[str, Any]:
    """Return a comparison for programs."""
    curve = order[0].curve
    return {
        "photos": curve.accuracy.of,
        "classes": curve.classes,
        "bundles": [dataclasses.asdict(one) | {"curve": one.curve.to_json()} for one in order],
        "verdict": [*verdict(order)],
    }


def comparison_lines(order: Sequence[Candidate]) -> Iterator[str]:
    """Yield a comparison for people: accuracies, costs, and the verdict."""
    curve = order[0].curve
    width = max(6, *(len(one.name) for one in order))
    yield f"{curve.accuracy.of:,} photos of {curve.classes:,} classes, cross-validated"
    numbers = dict.fromkeys(point.photos for one in order for point in one.curve.points[:-1])
    heads = [f"{_photos(n):>8}" for n in sorted(numbers)]
    yield f"{'':<{width}}  accuracy  95 % interval  {' '.join(heads)}  unknown"
    for one in order:
        by_number = {point.photos: f"{point.accuracy.share:.1%}" for point in one.curve.points[:-1]}
        cells = " ".join(f"{by_number.get(n, '-'):>8}" for n in sorted(numbers))
        auroc = "-" if one.curve.auroc is None else f"{one.curve.auroc:.3f}"
        share = one.curve.accuracy
        yield f"{one.name:<{width}}  {share.share:8.1%}  {share.interval:>13}  {cells}  {auroc:>7}"
    yield ""
    yield f"{'':<{width}}  ms a photo  in batches  MiB memory  MiB disk  licence"
    for one in order:
        cost = one.cost
        memory = "-" if cost.memory_mib is None else f"{cost.memory_mib:.0f}"
        yield (
            f"{one.name:<{width}}  {cost.one_ms:10.1f}  {cost.batch_ms:10.1f}  {memory:>10}  {cost.disk_mib:8.0f}  "
            + ", ".join(dict.fromkeys(text.partition(" (")[0] for text in one.licences.values()))
        )
    below = [(one.name, one.difference) for one in order if one.difference]
    if below:
        yield from ("", f"{'':<{width}}  difference to {order[0].name}, on the same photos")
        yield from (f"{name:<{width}}  {difference}" for name, difference in below)
    yield ""
    yield from verdict(order)


def _photos(number: int) -> str:
    return "by name" if not number else "1 photo" if number == 1 else f"{number:,}"
