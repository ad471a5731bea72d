"""Scatter plots of base against new accuracy: methods beside the hand-crafted prompt, and how SAR moves them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sar_train.report.base_new import SECTION, zero_shot
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Scene, Score, grouped, on_all, over_datasets, pairs
from sar_train.report.style import DASHED, GRID, INK, MUTED, WITH, WITHOUT, Figure, draw
from sar_train.report.wording import listed, method_name

Point = tuple[float, float]
Moves = dict[str, tuple[Point | None, Point | None]]
"""By method: (base, new) without SAR and with it."""


def figures(results: ResultSet) -> list[Figure]:
    """Return a figure for each scene, after one for the average of several datasets."""
    groups = grouped(results.of(SECTION))
    found = []
    for backbone, shots in dict.fromkeys((scene.backbone, scene.shots) for scene in groups):
        scenes = {s: rows for s, rows in groups.items() if (s.backbone, s.shots) == (backbone, shots)}
        if len(scenes) > 1:
            average = Scene(backbone, f"average of {len(scenes)} datasets", shots)
            found.append(_figure(average, _average(scenes.values()), folded=False))
        found += [_figure(scene, _average([rows]), folded=len(scenes) > 1) for scene, rows in scenes.items()]
    return found


def _average(scenes: Collection[dict[str, list[Result]]]) -> tuple[Point | None, Moves]:
    """Return the zero-shot point, and the moves of every method that was run on all of the scenes.

    A method that was run both ways on some of them alone is left out, as its row in the table is an average over those.
    """
    zero = over_datasets(zero_shot([run for found in rows.values() for run in found]) for rows in scenes)
    moves = {method: (_point(without), _point(with_sar)) for method, (without, with_sar) in on_all(scenes).items()}
    both = {method for rows in scenes for method, pair in pairs(rows).items() if all(pair)}
    return _point(zero), {m: pair for m, pair in moves.items() if all(pair) or (any(pair) and m not in both)}


def _point(found: Score | None) -> Point | None:
    return (found.base.value, found.new.value) if found and found.base and found.new else None


def _figure(scene: Scene, content: tuple[Point | None, Moves], *, folded: bool) -> Figure:
    zero, moves = content
    raised = [method_name(m) for m, (a, b) in moves.items() if a and b and b[1] > a[1]]
    names = listed([method_name(method) for method in moves])
    planned = Figure(
        key=f"base-new-{scene.slug}",
        section=SECTION,
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
    _limits(axes, points)
    _equal_means(axes)
    if zero:
        axes.axhline(zero[1], color=MUTED, dashes=DASHED, zorder=1)
    for without, with_sar in moves.values():
        if without and with_sar:
            arrow = {"arrowstyle": "-|>", "color": MUTED, "shrinkA": 4, "shrinkB": 5}
            axes.annotate("", xy=with_sar, xytext=without, arrowprops=arrow, zorder=2)
    axes.set(xlabel="base accuracy, %", ylabel="new accuracy, %")
    sides = [[pair[side] for pair in moves.values()] for side in (0, 1)]
    for label, found, colour, marker in (
        ("without SAR", sides[0], WITHOUT, "o"),
        ("with SAR", sides[1], WITH, "^"),
        ("zero-shot", [zero], INK, "X"),
    ):
        there = [point for point in found if point]
        axes.plot([x for x, _ in there], [y for _, y in there], marker, color=colour, ms=8, zorder=3, label=label)
    canvas.legend(loc="outside upper left", ncols=3)
    named = {method_name(method): (pair[0] or pair[1], pair[1] or pair[0]) for method, pair in moves.items()}
    _label(canvas, axes, {n: (a, b) for n, (a, b) in named.items() if a and b}, points, [zero[1]] if zero else [])


def _limits(axes: Axes, points: Sequence[Point]) -> None:
    (left, right), (low, high) = (_limits_of(values) for values in zip(*points, strict=True))
    axes.set(xlim=(left, right), ylim=(low, high))


def _limits_of(values: Sequence[float]) -> Point:
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


def _label(
    canvas: Canvas,
    axes: Axes,
    named: dict[str, tuple[Point, Point]],
    points: Sequence[Point],
    heights: Sequence[float],
) -> None:
    """Write names beside the points, each where it covers the least."""
    renderer: Any = canvas.canvas.get_renderer()  # type: ignore[attr-defined]
    canvas.draw_without_rendering()  # settles the layout, so that places are known
    to_pixels, scale = axes.transData.transform, canvas.dpi / 72
    taken = [_around(x, y, 7 * scale) for x, y in map(to_pixels, points)]
    lines = [float(to_pixels((0, height))[1]) for height in heights]
    for start, end in named.values():
        path = np.linspace(to_pixels(start), to_pixels(end), 12)
        taken += [_around(x, y, 2 * scale) for x, y in path]
    frame = axes.get_window_extent(renderer)
    taken += [_around(x, line, 2 * scale) for line in lines for x in np.arange(frame.x0, frame.x1, 4 * scale)]
    for name, ends in sorted(named.items(), key=lambda item: -item[1][1][1]):
        text = axes.text(*points[0], name)
        box = text.get_window_extent(renderer)
        text.remove()
        width, height = box.width, box.height
        choices = []
        for (place, point), far, (dx, dy) in itertools.product(enumerate(ends), (10, 18, 28), _DIRECTIONS):
            x, y = to_pixels(point) + np.array([dx, dy]) * far * scale
            x0, y0 = x + (dx - 1) / 2 * width, y + (dy - 1) / 2 * height
            spot = (x0, y0, x0 + width, y0 + height)
            outside = not (frame.x0 <= spot[0] and spot[2] <= frame.x1 and frame.y0 <= spot[1] and spot[3] <= frame.y1)
            cost = sum(_overlap(spot, other) for other in taken) + 1e6 * outside + far * 3 + 4 * (1 - place)
            choices.append((cost, point, far, (dx, dy), spot))
        _, point, far, (dx, dy), spot = min(choices, key=lambda choice: choice[0])
        taken.append(spot)
        offset = (dx * far, dy * far)
        sides = {-1: "right", 0: "center", 1: "left"}[dx], {-1: "top", 0: "center", 1: "bottom"}[dy]
        style: Any = {"ha": sides[0], "va": sides[1], "color": INK, "zorder": 5}
        thread = {"arrowstyle": "-", "color": GRID} if far > 18 else None
        axes.annotate(name, point, offset, textcoords="offset points", arrowprops=thread, **style)


_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def _around(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
