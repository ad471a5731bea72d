"""Base against new accuracy, one ranking, accuracy against shots, and learning curves: without SAR and with it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import textalloc
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sar_train.report.figure import DASHED, GRID, INK, MUTED, WITH, WITHOUT, Figure, wrapped
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import (
    Scene,
    Score,
    by_setting,
    grouped,
    in_one_ranking,
    mean,
    on_all,
    over_datasets,
    score,
    trained_scenes,
    zero_shot,
)
from sar_train.report.tables import series
from sar_train.report.wording import listed, method_name, slug

SIDES = (("without SAR", WITHOUT, "o"), ("with SAR", WITH, "^"))
DASHES: tuple[Any, ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
"""Dashes of lines, by loss term."""
Point = tuple[float, float]
Moves = dict[str, tuple[Point | None, Point | None]]
"""By method: (base, new) without SAR and with it."""


# ------------------------------------------------------------------------------------------------- base against new
def base_against_new(results: ResultSet) -> Iterator[Figure]:
    """Yield a figure for each scene, after one for the average of several datasets."""
    for (backbone, shots), scenes in by_setting(grouped(results.of("base-to-new"))).items():
        if len(scenes) > 1:
            yield _scatter(Scene(backbone, f"average of {len(scenes)} datasets", shots), scenes)
        for scene in scenes:
            yield dataclasses.replace(_scatter(scene, [scene]), folded=len(scenes) > 1)


def _scatter(average: Scene, scenes: Sequence[Scene]) -> Figure:
    """Return the zero-shot point, and the moves of every method that was run on all of the scenes.

    A method that was run both ways on some of them alone is left out, as its row in the table is an average over those.
    """
    zero = _point(over_datasets(zero_shot(scene.runs) for scene in scenes))
    both = {method for scene in scenes for method, pair in scene.methods.items() if all(pair)}
    ends = {method: (_point(without), _point(with_sar)) for method, (without, with_sar) in on_all(scenes).items()}
    moves = {m: pair for m, pair in ends.items() if all(pair) or (any(pair) and m not in both)}
    raised = [m for m, (without, with_sar) in moves.items() if without and with_sar and with_sar[1] > without[1]]
    return Figure(
        key=f"base-new-{average.slug}",
        section="base-to-new",
        title=f"Base against new accuracy: {average}",
        caption=(
            "Up and to the right is better. An arrow leads from a method to the same method with SAR; the cross is the "
            "hand-crafted prompt, and a method below its line has lost new classes. Grey curves: equal harmonic mean."
        ),
        alt=f"Base against new accuracy of {_listed(moves)}. SAR raised new accuracy for {_listed(raised)}.",
        paint=lambda canvas: _paint_scatter(canvas, zero, moves),
        size=(8.4, 6.0),
    )


def _point(average: Score | None) -> Point | None:
    return (average.base.value, average.new.value) if average and average.base and average.new else None


def _paint_scatter(canvas: Canvas, zero: Point | None, moves: Moves) -> None:
    axes = canvas.subplots()
    points = [p for pair in moves.values() for p in pair if p] + ([zero] if zero else [])
    if not points:
        return
    (left, right), (low, high) = (_limits(values) for values in zip(*points, strict=True))
    axes.set(xlim=(left, right), ylim=(low, high), xlabel="base accuracy, %", ylabel="new accuracy, %")
    _equal_means(axes)
    lines = [pair for pair in moves.values() if all(pair)]
    for start, end in lines:
        arrow = {"arrowstyle": "-|>", "color": MUTED, "shrinkA": 4, "shrinkB": 5}
        axes.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=2)  # type: ignore[arg-type]
    if zero:
        axes.axhline(zero[1], color=MUTED, dashes=DASHED, zorder=1)
        lines.append(((left, zero[1]), (right, zero[1])))
    for label, ends, colour, marker in (
        ("without SAR", [without for without, _ in moves.values()], WITHOUT, "o"),
        ("with SAR", [with_sar for _, with_sar in moves.values()], WITH, "^"),
        ("zero-shot", [zero], INK, "X"),
    ):
        marked = [point for point in ends if point]
        axes.plot([x for x, _ in marked], [y for _, y in marked], marker, color=colour, ms=8, zorder=3, label=label)
    canvas.legend(loc="outside upper left", ncols=3)
    named = {wrapped(method_name(method)): with_sar or without for method, (without, with_sar) in moves.items()}
    _label(axes, {name: point for name, point in named.items() if point}, points, lines)


def _limits(values: Sequence[float]) -> Point:
    margin = max(0.14 * (max(values) - min(values)), 1.0)
    return max(0.0, min(values) - margin), min(101.0, max(values) + margin)


def _equal_means(axes: Axes) -> None:
    """Draw curves of equal harmonic mean, labelled where they leave the axes."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    base, new = np.meshgrid(np.linspace(left, right, 200), np.linspace(low, high, 200))
    means = 2 * base * new / np.maximum(base + new, 1e-9)
    span = float(means.max() - means.min())
    step = next((s for s in (1, 2, 5, 10) if span / s <= 9), 20)
    levels = np.arange(np.ceil(means.min() / step) * step, means.max(), step)
    axes.contour(base, new, means, levels=levels, colors=GRID, linewidths=1, zorder=0)
    for level in levels:
        edge = level * right / (2 * right - level)  # new accuracy at the right edge
        above = level * high / (2 * high - level)  # base accuracy at the upper edge
        style: Any = {"color": MUTED, "fontsize": "small", "clip_on": False}
        if low < edge < high:
            axes.text(right, edge, f" H {level:.0f}", va="center", **style)
        elif left < above < right:
            axes.text(above, high, f"H {level:.0f}", va="bottom", ha="center", **style)


def _label(axes: Axes, named: dict[str, Point], points: Sequence[Point], lines: Sequence[Sequence[Any]]) -> None:
    """Write names near their points, clear of points, lines and one another; the highest choose first."""
    names = sorted(named, key=lambda name: -named[name][1])
    textalloc.allocate(
        axes,
        [named[name][0] for name in names],
        [named[name][1] for name in names],
        names,
        x_scatter=[x for x, _ in points],
        y_scatter=[y for _, y in points],
        x_lines=[[x for x, _ in line] for line in lines],
        y_lines=[[y for _, y in line] for line in lines],
        min_distance=0.02,
        max_distance=0.25,
        margin=0.01,
        nbr_candidates=400,
        avoid_label_lines_overlap=True,
        textsize=10.5,
        textcolor=INK,
        linecolor=GRID,
        zorder=5,
    )


# --------------------------------------------------------------------------------------------------------- panels
def curves(results: ResultSet) -> Iterator[Figure]:
    """Yield figures of one ranking, of accuracy by shots, and learning curves."""
    scenes = [scene for scene in grouped(results.of("base-to-new")) if any(map(in_one_ranking, scene.runs))]
    yield from (dataclasses.replace(_open_figure(scene), folded=len(scenes) > 2) for scene in scenes)
    yield from (_shots_figure(scenes) for scenes in series(results) if len(scenes) > 1)
    losses = [figure for protocol, scene in trained_scenes(results) if (figure := _losses_figure(protocol, scene))]
    yield from (dataclasses.replace(figure, folded=rank > 0) for rank, figure in enumerate(losses))


def _open_figure(scene: Scene) -> Figure:
    """Draw open new against open base accuracy, while an offset of the base logits runs."""
    methods = {m: sides for m, sides in scene.methods.items() if any(map(in_one_ranking, [*sides[0], *sides[1]]))}

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

    return _panels(
        key=f"open-{scene.slug}",
        section="open",
        title=f"One ranking over base and new classes on {scene}",
        caption=(
            "A line for each seed: an offset taken off the base logits moves a classifier along it, and the mark "
            "is where it stands without one. Up and to the right is better; AUSUC is the area below."
        ),
        alt=f"Open new against open base accuracy for {_listed(methods)}; the figures are in the table below.",
        beside=f"open-{scene.slug}",
        methods=list(methods),
        paint_panel=paint,
        labels=("open base accuracy, %", "open new accuracy, %"),
        legend=[*_sides(), Line2D([], [], color=MUTED, marker="X", label="zero-shot")],
    )


def _shots_figure(scenes: Sequence[Scene]) -> Figure:
    """Draw accuracy against the number of shots of one dataset."""
    by_shots = [scene.methods for scene in scenes]
    methods = list(dict.fromkeys(method for sides in by_shots for method in sides))
    dataset, backbone = scenes[0].dataset, scenes[0].backbone
    zero = zero_shot([run for scene in scenes for run in scene.runs]).base

    def paint(axes: Axes, method: str) -> None:
        for side, (_, colour, marker) in enumerate(SIDES):
            means = [score(sides.get(method, ([], []))[side]).base for sides in by_shots]
            points = [(x, point.value, point.sd or 0) for x, point in enumerate(means) if point]
            x = [x for x, _, _ in points]
            low, high = ([value + sign * sd for _, value, sd in points] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, [value for _, value, _ in points], color=colour, marker=marker)
        if zero:
            axes.axhline(zero.value, color=MUTED, dashes=DASHED)
        axes.set_xticks(range(len(scenes)), [str(scene.shots or "all") for scene in scenes])
        axes.margins(x=0.06)

    return _panels(
        key=slug(f"shots-{dataset}-{backbone}"),
        section="few-shot",
        title=f"Accuracy against shots on {dataset}, {backbone}",
        caption=(
            "Mean over seeds; the band is one standard deviation to each side. The dashed line is the hand-crafted "
            "prompt."
        ),
        alt=f"Accuracy on {dataset} by shots for {_listed(methods)}; the figures are in the table below.",
        methods=methods,
        paint_panel=paint,
        labels=("shots", "accuracy, %"),
        legend=[*_sides(), Line2D([], [], color=MUTED, dashes=DASHED, label="zero-shot")],
    )


Terms = dict[str, list[tuple[int, float]]]
"""(epoch, mean over runs) by loss term."""


def _losses_figure(protocol: str, scene: Scene) -> Figure | None:
    """Draw loss terms by epoch, averaged over seeds; None where no run has such."""
    every = {method: [_terms(side) for side in sides] for method, sides in scene.methods.items()}
    methods = {method: sides for method, sides in every.items() if any(sides)}
    if not methods:
        return None
    terms = list(dict.fromkeys(term for sides in methods.values() for side in sides for term in side))
    dashes = {term: DASHES[rank % len(DASHES)] for rank, term in enumerate(terms)}

    def paint(axes: Axes, method: str) -> None:
        for side, (_, colour, _) in zip(methods[method], SIDES, strict=True):
            for term, values in side.items():
                if positive := [(epoch, value) for epoch, value in values if value > 0]:
                    axes.plot(*zip(*positive, strict=True), color=colour, dashes=dashes[term])
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())

    lines = [Line2D([], [], color=INK, dashes=dashes[term], label=term.replace("_", "-")) for term in terms]
    return _panels(
        key=slug(f"curves-{protocol}-{scene.slug}"),
        section="curves",
        title=f"Learning curves on {scene}, {protocol}",
        caption=(
            "Means over an epoch's steps and over seeds. A method's own terms are as weighted; SAR's, the regulariser, "
            "is without its weight."
        ),
        alt=f"Loss terms ({', '.join(terms)}) by epoch for {_listed(methods)}.",
        methods=list(methods),
        paint_panel=paint,
        labels=("epoch", "loss, log scale"),
        legend=[*_sides(marker=False), *lines],
        shared=False,
    )


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


def _listed(methods: Iterable[str]) -> str:
    return listed([method_name(method) for method in methods])


def _sides(*, marker: bool = True) -> list[Line2D]:
    return [Line2D([], [], color=colour, marker=shape if marker else "", label=name) for name, colour, shape in SIDES]


def _panels(
    *,
    methods: Sequence[str],
    paint_panel: Callable[[Axes, str], None],
    labels: tuple[str, str],
    legend: Sequence[Line2D],
    shared: bool = True,
    **texts: Any,
) -> Figure:
    """Return a grid of panels, at most four in a row, with one legend above.

    Args:
        methods: one for each panel.
        paint_panel: draws a method's panel.
        labels: of the horizontal and the vertical axis.
        legend: its lines.
        shared: all panels have the same limits.
        texts: of the figure.
    """
    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)

    def paint(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared)
        for number, axes in enumerate(grid.flat):
            if number >= len(methods):
                axes.set_axis_off()
                continue
            paint_panel(axes, methods[number])
            axes.grid(axis="y")
            axes.set_title(wrapped(method_name(methods[number])))
            if number >= len(methods) - columns:
                axes.set_xlabel(labels[0])
                axes.tick_params(labelbottom=True)
            if number % columns == 0:
                axes.set_ylabel(labels[1])
        canvas.legend(handles=list(legend), loc="outside upper left", ncols=4)

    return Figure(paint=paint, size=(max(6.4, 3.2 * columns), 2.75 * rows + 0.55), **texts)
