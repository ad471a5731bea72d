"""One ranking, accuracy against shots, learning curves: a small panel for each method, without SAR and with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sar_train.report.base_new import zero_shot
from sar_train.report.few_shot import Series, by_dataset
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Scene, grouped, in_one_ranking, mean, pairs, score, slug, with_most_shots
from sar_train.report.style import DASHED, INK, MUTED, WITH, WITHOUT, Figure, draw
from sar_train.report.wording import listed, method_name

SIDES = (("without SAR", WITHOUT, "o"), ("with SAR", WITH, "^"))
DASHES: tuple[Any, ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
"""Dashes of lines, by loss term."""


def figures(results: ResultSet) -> list[Figure]:
    """Return all figures of every kind."""
    return [*open_curves(results), *accuracy_by_shots(results), *learning_curves(results)]


def open_curves(results: ResultSet) -> list[Figure]:
    """Return a figure for each scene that was measured in one ranking: open new against open base accuracy."""
    groups = grouped(results.of("base-to-new")).items()
    found = [(scene, rows) for scene, rows in groups if any(any(map(in_one_ranking, runs)) for runs in rows.values())]
    return [_open_curves(scene, pairs(rows), folded=len(found) > 2) for scene, rows in found]


def _open_curves(scene: Scene, rows: dict[str, tuple[list[Result], list[Result]]], *, folded: bool) -> Figure:
    sides = {method: pair for method, pair in rows.items() if any(map(in_one_ranking, [*pair[0], *pair[1]]))}

    def line(axes: Axes, measures: Mapping[str, Any], colour: str, marker: str) -> None:
        (curve,) = axes.plot(measures["curve"]["base"], measures["curve"]["new"], color=colour)
        curve.sticky_edges.x[:] = curve.sticky_edges.y[:] = [0]  # axes start at 0, those of later panels count too
        axes.plot(measures["base_accuracy"], measures["new_accuracy"], marker, color=colour, zorder=3)

    def paint(axes: Axes, method: str) -> None:
        every = [run for side in sides[method] for run in side]
        for measures in [found for run in every if (found := in_one_ranking(run, "zero_shot"))][:1]:
            line(axes, measures, MUTED, "X")
        for side, (_, colour, marker) in zip(sides[method], SIDES, strict=True):
            for measures in filter(None, map(in_one_ranking, side)):
                line(axes, measures, colour, marker)

    names = listed([method_name(method) for method in sides])
    return _panels(
        list(sides),
        paint,
        labels=("open base accuracy, %", "open new accuracy, %"),
        legend=[*_sides(), Line2D([], [], color=MUTED, marker="X", label="zero-shot")],
        planned=Figure(
            key=f"open-{scene.slug}",
            section="open",
            title=f"One ranking over base and new classes on {scene}",
            caption=(
                "A line for each seed: an offset taken off the base logits moves a classifier along it, and the mark "
                "is where it stands without one. Up and to the right is better; AUSUC is the area below."
            ),
            alt=f"Open new against open base accuracy for {names}; the figures are in the table below.",
            folded=folded,
            beside=f"open-{scene.slug}",
        ),
    )


def accuracy_by_shots(results: ResultSet) -> list[Figure]:
    """Return a figure for each dataset that was run with more than one number of shots."""
    return [_by_shots(scene, series) for scene, series in by_dataset(results).items() if len(series) > 1]


def _by_shots(scene: Scene, series: Series) -> Figure:
    by_shots = {count: pairs(rows) for count, rows in series.items()}
    methods = list(dict.fromkeys(method for rows in by_shots.values() for method in rows))
    zero = zero_shot([run for rows in series.values() for found in rows.values() for run in found]).base

    def paint(axes: Axes, method: str) -> None:
        places = range(len(series))
        for side, (_, colour, marker) in enumerate(SIDES):
            found = [score(rows.get(method, ([], []))[side]).base for rows in by_shots.values()]
            drawn = [(x, point) for x, point in zip(places, found, strict=True) if point]
            x, y = [x for x, _ in drawn], [point.value for _, point in drawn]
            low, high = ([p.value + s * (p.sd or 0) for _, p in drawn] for s in (-1, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, y, color=colour, marker=marker)
        if zero:
            axes.axhline(zero.value, color=MUTED, dashes=DASHED)
        axes.set_xticks(list(places), [str(count or "all") for count in series])
        axes.margins(x=0.06)

    names = listed([method_name(method) for method in methods])
    return _panels(
        methods,
        paint,
        labels=("shots", "accuracy, %"),
        legend=[*_sides(), Line2D([], [], color=MUTED, dashes=DASHED, label="zero-shot")],
        planned=Figure(
            key=slug(f"shots-{scene.dataset}-{scene.backbone}"),
            section="few-shot",
            title=f"Accuracy against shots on {scene.dataset}, {scene.backbone}",
            caption=(
                "Mean over seeds; the band is one standard deviation to each side. The dashed line is the hand-crafted "
                "prompt."
            ),
            alt=f"Accuracy on {scene.dataset} by shots for {names}; the figures are in the table below.",
        ),
    )


def learning_curves(results: ResultSet) -> list[Figure]:
    """Return a figure for each scene of each experiment but sweeps: loss terms by epoch, averaged over seeds."""
    found: list[Figure] = []
    for protocol in ("base-to-new", "few-shot", "cross-dataset", "domain-generalisation"):
        groups = grouped(results.of(protocol))
        shown = with_most_shots(groups) if protocol == "few-shot" else groups
        for scene, rows in shown.items():
            sides = {method: pair for method, pair in pairs(rows).items() if any(_terms(side) for side in pair)}
            if sides:
                found.append(_curves(protocol, scene, sides, folded=bool(found)))
    return found


def _curves(
    protocol: str, scene: Scene, sides: dict[str, tuple[list[Result], list[Result]]], *, folded: bool
) -> Figure:
    terms = list(dict.fromkeys(term for pair in sides.values() for side in pair for term in _terms(side)))
    dashes = {term: DASHES[place % len(DASHES)] for place, term in enumerate(terms)}

    def paint(axes: Axes, method: str) -> None:
        for side, (_, colour, _) in zip(sides[method], SIDES, strict=True):
            for term, values in _terms(side).items():
                if positive := [(epoch, value) for epoch, value in values if value > 0]:
                    axes.plot(*zip(*positive, strict=True), color=colour, dashes=dashes[term])
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())

    lines = [Line2D([], [], color=INK, dashes=dashes[t], label=t.replace("_", "-")) for t in terms]
    return _panels(
        list(sides),
        paint,
        labels=("epoch", "loss, log scale"),
        legend=[*_sides(marker=False), *lines],
        planned=Figure(
            key=slug(f"curves-{protocol}-{scene.slug}"),
            section="curves",
            title=f"Learning curves on {scene}, {protocol}",
            caption=(
                "Means over an epoch's steps and over seeds. A method's own terms are as weighted; SAR's, the "
                "regulariser, is without its weight."
            ),
            alt=f"Loss terms ({', '.join(terms)}) by epoch for {listed([method_name(method) for method in sides])}.",
            folded=folded,
        ),
        shared=False,
    )


def _terms(runs: Sequence[Result]) -> dict[str, list[tuple[int, float]]]:
    """Return (epoch, mean over runs) by loss term."""
    found: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        for entry in run["history"] or []:
            for term, value in entry.items():
                if term not in {"epoch", "learning_rate"} and isinstance(value, int | float) and math.isfinite(value):
                    found.setdefault(term, {}).setdefault(int(entry["epoch"]), []).append(value)
    averages = {term: [(epoch, mean(values)) for epoch, values in sorted(by.items())] for term, by in found.items()}
    return {
        term: [(epoch, m.value) for epoch, m in points if m] for term, points in averages.items() if len(points) > 1
    }


def _sides(*, marker: bool = True) -> list[Line2D]:
    return [Line2D([], [], color=colour, marker=shape if marker else "", label=name) for name, colour, shape in SIDES]


def _panels(
    methods: Sequence[str],
    paint: Callable[[Axes, str], None],
    *,
    labels: tuple[str, str],
    legend: Sequence[Line2D],
    shared: bool = True,
    planned: Figure,
) -> Figure:
    """Draw a grid of panels, at most four in a row, with one legend above."""
    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)

    def whole(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
        for place, axes in enumerate(grid.flat):
            if place >= len(methods):
                axes.set_axis_off()
                continue
            paint(axes, methods[place])
            axes.grid(axis="y")
            axes.set_title(method_name(methods[place]))
            if place >= len(methods) - columns:
                axes.set_xlabel(labels[0])
                axes.tick_params(labelbottom=True)
            if place % columns == 0:
                axes.set_ylabel(labels[1])
        canvas.legend(handles=list(legend), loc="outside upper left", ncols=4)

    return draw(planned, whole, (max(6.4, 3.2 * columns), 2.75 * rows + 0.55))
