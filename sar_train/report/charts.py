"""One ranking, accuracy against shots, learning curves: a small panel for each method, without SAR and with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sar_train.report.figure import DASHED, INK, MUTED, WITH, WITHOUT, Figure, draw
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import (
    Scene,
    Sides,
    all_runs,
    grouped,
    in_one_ranking,
    mean,
    pairs,
    score,
    with_most_shots,
    zero_shot,
)
from sar_train.report.similarities import TRAINED
from sar_train.report.tables import Series, series_by_dataset
from sar_train.report.wording import listed, method_name, slug

SIDES = (("without SAR", WITHOUT, "o"), ("with SAR", WITH, "^"))
DASHES: tuple[Any, ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
"""Dashes of lines, by loss term."""


def figures(results: ResultSet) -> list[Figure]:
    """Return all figures of every kind."""
    return [*_open_curves(results), *_accuracy_by_shots(results), *_learning_curves(results)]


def _open_curves(results: ResultSet) -> list[Figure]:
    """Return a figure for each scene that was measured in one ranking: open new against open base accuracy."""
    groups = {scene: pairs(rows) for scene, rows in grouped(results.of("base-to-new")).items()}
    measured = {
        scene: {m: sides for m, sides in methods.items() if any(map(in_one_ranking, [*sides[0], *sides[1]]))}
        for scene, methods in groups.items()
    }
    shown = {scene: methods for scene, methods in measured.items() if methods}
    return [_open_figure(scene, methods, folded=len(shown) > 2) for scene, methods in shown.items()]


def _open_figure(scene: Scene, methods: dict[str, Sides], *, folded: bool) -> Figure:
    def line(axes: Axes, measures: Mapping[str, Any], colour: str, marker: str) -> None:
        (curve,) = axes.plot(measures["curve"]["base"], measures["curve"]["new"], color=colour)
        curve.sticky_edges.x[:] = curve.sticky_edges.y[:] = [0]  # axes start at 0, those of later panels count too
        axes.plot(measures["base_accuracy"], measures["new_accuracy"], marker, color=colour, zorder=3)

    def paint(axes: Axes, method: str) -> None:
        runs = [run for side in methods[method] for run in side]
        for measures in [m for run in runs if (m := in_one_ranking(run, "zero_shot"))][:1]:
            line(axes, measures, MUTED, "X")
        for side, (_, colour, marker) in zip(methods[method], SIDES, strict=True):
            for measures in filter(None, map(in_one_ranking, side)):
                line(axes, measures, colour, marker)

    caption = (
        "A line for each seed: an offset taken off the base logits moves a classifier along it, and the mark "
        "is where it stands without one. Up and to the right is better; AUSUC is the area below."
    )
    key, title = f"open-{scene.slug}", f"One ranking over base and new classes on {scene}"
    alt = f"Open new against open base accuracy for {_listed(methods)}; the figures are in the table below."
    planned = Figure(key, "open", title, caption, alt, folded, beside=key)
    legend = [*_sides(), Line2D([], [], color=MUTED, marker="X", label="zero-shot")]
    return _panels(list(methods), paint, planned, ("open base accuracy, %", "open new accuracy, %"), legend)


def _accuracy_by_shots(results: ResultSet) -> list[Figure]:
    """Return a figure for each dataset that was run with more than one number of shots."""
    return [_shots_figure(scene, series) for scene, series in series_by_dataset(results).items() if len(series) > 1]


def _shots_figure(scene: Scene, series: Series) -> Figure:
    by_shots = [pairs(rows) for rows in series.values()]
    methods = list(dict.fromkeys(method for rows in by_shots for method in rows))
    zero = zero_shot([run for rows in series.values() for run in all_runs(rows)]).base

    def paint(axes: Axes, method: str) -> None:
        for side, (_, colour, marker) in enumerate(SIDES):
            means = [score(rows.get(method, ([], []))[side]).base for rows in by_shots]
            points = [(x, point.value, point.sd or 0) for x, point in enumerate(means) if point]
            x = [x for x, _, _ in points]
            low, high = ([value + sign * sd for _, value, sd in points] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, [value for _, value, _ in points], color=colour, marker=marker)
        if zero:
            axes.axhline(zero.value, color=MUTED, dashes=DASHED)
        axes.set_xticks(range(len(series)), [str(count or "all") for count in series])
        axes.margins(x=0.06)

    caption = (
        "Mean over seeds; the band is one standard deviation to each side. The dashed line is the hand-crafted prompt."
    )
    key = slug(f"shots-{scene.dataset}-{scene.backbone}")
    title = f"Accuracy against shots on {scene.dataset}, {scene.backbone}"
    alt = f"Accuracy on {scene.dataset} by shots for {_listed(methods)}; the figures are in the table below."
    legend = [*_sides(), Line2D([], [], color=MUTED, dashes=DASHED, label="zero-shot")]
    return _panels(methods, paint, Figure(key, "few-shot", title, caption, alt), ("shots", "accuracy, %"), legend)


def _learning_curves(results: ResultSet) -> Iterator[Figure]:
    """Yield a figure for each scene of each experiment but sweeps: loss terms by epoch, averaged over seeds."""
    folded = False
    for protocol in TRAINED:
        groups = grouped(results.of(protocol))
        for scene, rows in (with_most_shots(groups) if protocol == "few-shot" else groups).items():
            curves = {method: [_terms(side) for side in sides] for method, sides in pairs(rows).items()}
            if curves := {method: sides for method, sides in curves.items() if any(sides)}:
                yield _curves_figure(protocol, scene, curves, folded=folded)
                folded = True


Terms = dict[str, list[tuple[int, float]]]
"""(epoch, mean over runs) by loss term."""


def _curves_figure(protocol: str, scene: Scene, curves: dict[str, list[Terms]], *, folded: bool) -> Figure:
    terms = list(dict.fromkeys(term for sides in curves.values() for side in sides for term in side))
    dashes = {term: DASHES[rank % len(DASHES)] for rank, term in enumerate(terms)}

    def paint(axes: Axes, method: str) -> None:
        for side, (_, colour, _) in zip(curves[method], SIDES, strict=True):
            for term, values in side.items():
                if positive := [(epoch, value) for epoch, value in values if value > 0]:
                    axes.plot(*zip(*positive, strict=True), color=colour, dashes=dashes[term])
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())

    caption = (
        "Means over an epoch's steps and over seeds. A method's own terms are as weighted; SAR's, the regulariser, is "
        "without its weight."
    )
    title = f"Learning curves on {scene}, {protocol}"
    alt = f"Loss terms ({', '.join(terms)}) by epoch for {_listed(curves)}."
    planned = Figure(slug(f"curves-{protocol}-{scene.slug}"), "curves", title, caption, alt, folded)
    lines = [Line2D([], [], color=INK, dashes=dashes[term], label=term.replace("_", "-")) for term in terms]
    legend = [*_sides(marker=False), *lines]
    return _panels(list(curves), paint, planned, ("epoch", "loss, log scale"), legend, shared=False)


def _terms(runs: Sequence[Result]) -> Terms:
    """Average the terms that have more than one epoch."""
    values: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        for entry in run["history"] or []:
            for term, value in entry.items():
                if term not in {"epoch", "learning_rate"} and isinstance(value, int | float) and math.isfinite(value):
                    values.setdefault(term, {}).setdefault(int(entry["epoch"]), []).append(value)
    return {
        term: [(epoch, average.value) for epoch in sorted(by_epoch) if (average := mean(by_epoch[epoch]))]
        for term, by_epoch in values.items()
        if len(by_epoch) > 1
    }


def _listed(methods: Mapping[str, Any] | Sequence[str]) -> str:
    return listed([method_name(method) for method in methods])


def _sides(*, marker: bool = True) -> list[Line2D]:
    return [Line2D([], [], color=colour, marker=shape if marker else "", label=name) for name, colour, shape in SIDES]


def _panels(
    methods: Sequence[str],
    paint: Callable[[Axes, str], None],
    planned: Figure,
    labels: tuple[str, str],
    legend: Sequence[Line2D],
    *,
    shared: bool = True,
) -> Figure:
    """Draw a grid of panels, at most four in a row, with one legend above.

    Args:
        methods: one for each panel.
        paint: draws a method's panel.
        planned: everything but the drawings.
        labels: of the horizontal and the vertical axis.
        legend: its lines.
        shared: all panels have the same limits.
    """
    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)

    def whole(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
        for number, axes in enumerate(grid.flat):
            if number >= len(methods):
                axes.set_axis_off()
                continue
            paint(axes, methods[number])
            axes.grid(axis="y")
            axes.set_title(method_name(methods[number]))
            if number >= len(methods) - columns:
                axes.set_xlabel(labels[0])
                axes.tick_params(labelbottom=True)
            if number % columns == 0:
                axes.set_ylabel(labels[1])
        canvas.legend(handles=list(legend), loc="outside upper left", ncols=4)

    return draw(planned, whole, (max(6.4, 3.2 * columns), 2.75 * rows + 0.55))
