"""Bundles compared on the same photos: which is best, which is level with it and cheaper."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sar_infer.bundle.bundle import SHIPPED
from sar_infer.evaluation.curve import Curve, expectation, photos_of
from sar_infer.evaluation.html import write_page
from sar_infer.evaluation.report import table
from sar_infer.evaluation.several import SeveralEvaluation, figures
from sar_infer.images.thumbnail import picture_of, short_name
from sar_infer.measures import Difference, paired_difference
from sar_infer.storage.strict_json import json_values

_FOR_TRIALS, _LOW = (SHIPPED, "sar-mini-vit"), 0.8
"""Backbones that ship, and the accuracy below which others are mentioned."""
_MOST = 8
"""Photos on each side of the page."""
_CHEAPER = 0.9
"""Share of the time of the best bundle below which another is cheaper."""


@dataclass(frozen=True)
class Cost:
    """Costs of a bundle on this machine.

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
        several: The answers for photos of several things; None if there were none.
        difference: Its accuracy less that of the best one; None for that one.
    """

    name: str
    licences: Mapping[str, str]
    curve: Curve
    cost: Cost
    several: SeveralEvaluation | None = None
    difference: Difference | None = None

    @property
    def licence(self) -> str:
        """Return the licences, each once, without remarks."""
        return ", ".join(dict.fromkeys(text.partition(" (")[0] for text in self.licences.values())) or "not stated"


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates with their difference to the best, the best first; all must have the same photos."""
    best, *others = sorted(candidates, key=lambda one: (-one.curve.accuracy.share, one.cost.batch_ms))
    flags = best.curve.right[-1] > 0
    differences = [paired_difference(one.curve.right[-1] > 0, flags) for one in others]
    return [best, *map(lambda one, of: dataclasses.replace(one, difference=of), others, differences)]


def verdict(order: Sequence[Candidate]) -> Iterator[str]:
    """Yield which candidate to take, which are level with the best one, and how many photos would tell them apart."""
    best, *others = order
    level = [(one, of) for one in others if (of := one.difference) and of.level]
    if others and not level:
        yield f"{best.name} is best: the others are below it by more than chance explains"
    if level:
        cheapest = min(best, *(one for one, _ in level), key=lambda one: one.cost.batch_ms)
        yield f"take {cheapest.name}: none is better by more than chance explains, and it is the fastest of these"
    for one, of in level:
        times = one.cost.batch_ms / best.cost.batch_ms
        cheaper = f" and takes {times:.0%} of its time" if times < _CHEAPER else ""
        enough = (
            "equally many correct answers"
            if of.enough is None
            else f"about {rounded(of.enough):,} photos would tell them apart"
        )
        yield f"{one.name} is level with {best.name}{cheaper}: {of}; {enough}"
    yield f"{best.name} with {photos_of(best.curve.twice.photos)} of each class: {expectation(best.curve)}"


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
        "bundles": [
            json_values(dataclasses.replace(one, several=None))
            | {"licence": one.licence, "several": one.several and figures(one.several)}
            for one in order
        ],
        "verdict": [*verdict(order)],
    }


def comparison_lines(order: Sequence[Candidate]) -> Iterator[str]:
    """Yield a comparison for people: accuracies, costs, differences and the verdict."""
    curve = order[0].curve
    yield f"{curve.accuracy.of:,} photos of {curve.classes:,} classes; cross-validated accuracy by photos of each class"
    numbers = sorted({point.photos for one in order for point in one.curve.points[:-1]})
    fewer = dict.fromkeys(map(photos_of, numbers), ".1%")
    columns = {"": "", photos_of(curve.points[-1].photos): ".1%", "95 % interval": "", **fewer}
    rows: list[list[object]] = []
    for one in order:
        at = {point.photos: point.accuracy for point in one.curve.points[:-1]}
        share, twice = one.curve.accuracy, f"~{one.curve.twice.accuracy:.0%}"
        rows.append([one.name, share, share.interval, *map(at.get, numbers), twice, one.curve.auroc])
    yield from table(columns | {photos_of(curve.twice.photos): "", "unknown": ".3f"}, rows)
    yield ""
    yield from table(
        {"": "", "ms a photo": ".1f", "in batches": ".1f", "MiB memory": ".0f", "MiB disk": ".0f", "licence": ""},
        [[one.name, *vars(one.cost).values(), one.licence] for one in order],
    )
    several = [(one.name, one.several) for one in order if one.several]
    if several:
        yield from ("", f"{len(several[0][1].answers):,} other photos, of several things, by the class model of these")
        yield from table(
            {"": "", "mean average precision": ".1%", "precision": ".1%", "recall": ".1%"},
            [[name, of.mean_average_precision, of.precision, of.recall] for name, of in several],
        )
    if len(order) > 1:
        yield ""
        columns = {"": "", f"difference to {order[0].name} on the same photos": ""}
        yield from table(columns, [[one.name, one.difference] for one in order[1:]])
    yield ""
    yield from verdict(order)


def write_comparison(
    path: Path, order: Sequence[Candidate], photos: Sequence[tuple[str, str]], title: str, facts: Mapping[str, str]
) -> None:
    """Write the page of a comparison: one HTML file that holds all it shows.

    Args:
        path: The file.
        order: The candidates of `ranked`.
        photos: (N,) class and path of each photo.
        title: The title.
        facts: What was compared, by name, for the foot of the page.

    Raises:
        WriteError: The file cannot be written.
    """

    def side(one: Candidate, other: Candidate) -> dict[str, Any]:
        only = np.flatnonzero(one.curve.right[-1] > other.curve.right[-1]).tolist()
        shown = [photos[number] for number in only[:: -(-len(only) // _MOST) or 1]]
        cards = [{"label": label, "image": short_name(path), "picture": picture_of(path)} for label, path in shown]
        return {"name": one.name, "count": len(only), "photos": cards}

    sides = [{"best": side(order[0], one), "other": side(one, order[0])} for one in order[1:]]
    write_page(path, "compare", title, comparison_content(order) | {"facts": dict(facts), "sides": sides})


def encoder_hint(backbone: str, accuracy: float, photos: str = "PHOTOS") -> str | None:
    """Return a line about other encoders if the one that is for trying out has a low accuracy; else None.

    Args:
        backbone: That of the bundle.
        accuracy: Measured or expected, 0 to 1.
        photos: The folder of photos.
    """
    if backbone not in _FOR_TRIALS or accuracy >= _LOW:
        return None
    command = shlex.join(["sar-bundle", "compare", SHIPPED, "BUNDLE", "--photos", photos])
    return f"{backbone} is for trying out; compare it with a larger encoder on your photos: {command}"
