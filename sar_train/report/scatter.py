"""Scatter plots of base against new accuracy: methods beside the hand-crafted prompt, and how SAR moves them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import textalloc
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sar_train.report.figure import DASHED, GRID, INK, MUTED, WITH, WITHOUT, Figure, draw
from sar_train.report.results import ResultSet
from sar_train.report.scores import Rows, Scene, Score, all_runs, by_setting, grouped, on_all, over_datasets, pairs
from sar_train.report.scores import zero_shot as zero_shot_score
from sar_train.report.wording import listed, method_name

Point = tuple[float, float]
Moves = dict[str, tuple[Point | None, Point | None]]
"""By method: (base, new) without SAR and with it."""


def figures(results: ResultSet) -> Iterator[Figure]:
    """Yield a figure for each scene, after one for the average of several datasets."""
    for (backbone, shots), scenes in by_setting(grouped(results.of("base-to-new"))).items():
        if len(scenes) > 1:
            average = Scene(backbone, f"average of {len(scenes)} datasets", shots)
            yield _figure(average, *_averages(scenes.values()), folded=False)
        for scene, rows in scenes.items():
            yield _figure(scene, *_averages([rows]), folded=len(scenes) > 1)


def _averages(scenes: Collection[Rows]) -> tuple[Point | None, Moves]:
    """Return the zero-shot point, and the moves of every method that was run on all of the scenes.

    A method that was run both ways on some of them alone is left out, as its row in the table is an average over those.
    """
    zero = over_datasets(zero_shot_score(all_runs(rows)) for rows in scenes)
    moves = {method: (_point(without), _point(with_sar)) for method, (without, with_sar) in on_all(scenes).items()}
    both = {method for rows in scenes for method, pair in pairs(rows).items() if all(pair)}
    return _point(zero), {m: pair for m, pair in moves.items() if all(pair) or (any(pair) and m not in both)}


def _point(average: Score | None) -> Point | None:
    return (average.base.value, average.new.value) if average and average.base and average.new else None


def _figure(scene: Scene, zero: Point | None, moves: Moves, *, folded: bool) -> Figure:
    raised = [method_name(m) for m, (a, b) in moves.items() if a and b and b[1] > a[1]]
    names = listed([method_name(method) for method in moves])
    planned = Figure(
        key=f"base-new-{scene.slug}",
        section="base-to-new",
        title=f"Base against new accuracy: {scene}",
        caption=(
            "Up and to the right is better. An arrow leads from a method to the same method with SAR; the cross is the "
            "hand-crafted prompt, and a method below its line has lost new classes. Grey curves: equal harmonic mean."
        ),
        alt=f"Base against new accuracy of {names}. SAR raised new accuracy for {listed(raised)}.",
        folded=folded,
    )
    return draw(planned, lambda canvas: _paint(canvas, zero, moves), (8.4, 6.0))


def _paint(canvas: Canvas, zero: Point | None, moves: Moves) -> None:
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
    named = {method_name(method): with_sar or without for method, (without, with_sar) in moves.items()}
    _label(axes, {name: point for name, point in named.items() if point}, points, lines)


def _limits(values: Sequence[float]) -> Point:
    margin = max(0.14 * (max(values) - min(values)), 1.0)
    return max(0.0, min(values) - margin), min(101.0, max(values) + margin)


def _equal_means(axes: Axes) -> None:
    """Draw curves of equal harmonic mean, labelled where they leave the axes."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    base, new = np.meshgrid(np.linspace(left, right, 200), np.linspace(low, high, 200))
    mean = 2 * base * new / np.maximum(base + new, 1e-9)
    span = float(mean.max() - mean.min())
    step = next((s for s in (1, 2, 5, 10) if span / s <= 9), 20)
    levels = np.arange(np.ceil(mean.min() / step) * step, mean.max(), step)
    axes.contour(base, new, mean, levels=levels, colors=GRID, linewidths=1, zorder=0)
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
