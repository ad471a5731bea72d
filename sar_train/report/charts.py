"""Figures: base against new accuracy, joint accuracy, and accuracy against shots, each without SAR and with it.

They are SVG for the page, in colours that follow its scheme, and PNG files.
"""

from __future__ import annotations

import dataclasses
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import textalloc
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from sar_train.report.published import method_name
from sar_train.report.results import ResultSet
from sar_train.report.scores import (
    Scene,
    Score,
    by_setting,
    grouped,
    joint_measures,
    on_all,
    over_datasets,
    score,
    slug,
    zero_shot,
)
from sar_train.report.tables import series

INK, MUTED, GRID = "#1b2430", "#66707c", "#d9dee4"
WITHOUT, WITH = "#0072b2", "#d55e00"
"""From Okabe and Ito's palette, which is distinguishable with any kind of colour vision."""
VARIABLES = {
    INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", WITHOUT: "var(--without)", WITH: "var(--with)",
}  # fmt: skip
DASHED = (4, 2)
"""Dashes of lines to compare with: zero-shot."""
SIDES = (("without SAR", WITHOUT, "o"), ("with SAR", WITH, "^"))
RC: Any = {
    "axes.axisbelow": True, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.linewidth": 0.8,
    "axes.spines.right": False, "axes.spines.top": False, "axes.titlecolor": INK, "axes.titlelocation": "left",
    "axes.titlesize": 11, "axes.facecolor": "none", "figure.facecolor": "none", "font.size": 10.5, "grid.color": GRID,
    "legend.frameon": False, "legend.labelcolor": INK, "svg.fonttype": "none", "text.color": INK,
    "text.parse_math": False, "xtick.color": MUTED, "xtick.labelcolor": INK, "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}  # fmt: skip
NOTHING = {"Creator": None, "Date": None, "Format": None, "Type": None}
"""Metadata to leave out, as it differs from day to day or contains addresses."""
TIGHT: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08}
LINE = 36
"""Characters in a line as wide as the narrowest panel."""
Point = tuple[float, float]
Moves = dict[str, tuple[Point | None, Point | None]]
"""By method: (base, new) without SAR and with it."""


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of the report.

    Attributes:
        key: its file's name.
        section: the part of the report that it belongs to.
        title: its title.
        caption: how to read it.
        paint: draws on an empty canvas.
        size: width and height in inches.
        folded: hidden until the reader opens it.
    """

    key: str
    section: str
    title: str
    caption: str
    paint: Callable[[Canvas], None]
    size: tuple[float, float]
    folded: bool = False

    def draw(self) -> tuple[str, bytes]:
        """Return an ``svg`` element for the page, and the same as a PNG file."""
        svg, png = io.StringIO(), io.BytesIO()
        with mpl.rc_context({**RC, "svg.hashsalt": self.key}):
            canvas = Canvas(figsize=self.size, layout="constrained")
            FigureCanvasAgg(canvas)
            self.paint(canvas)
            canvas.savefig(svg, format="svg", metadata=NOTHING, **TIGHT)
            canvas.savefig(png, format="png", metadata={"Software": None}, dpi=160, facecolor="white", **TIGHT)
        return page_svg(svg.getvalue(), self.title), png.getvalue()


def page_svg(text: str, title: str) -> str:
    """Turn an SVG file into an element of a page, with the page's colours and font."""
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # the others are hashed with the figure's key
    text = re.sub(r"\s*\n\s*", " ", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    for colour, variable in VARIABLES.items():
        text = re.sub(colour, variable, text, flags=re.IGNORECASE)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])  # type: ignore[index]
    shape = f'style="max-width: {width:.0f}pt; min-width: min(44rem, {0.8 * width:.0f}px)"'
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" {shape} ', 1).strip()


def figures(results: ResultSet) -> Iterator[Figure]:
    """Yield all figures: of base against new accuracy one for each scene, after one for the average of several."""
    for (backbone, shots), scenes in by_setting(grouped(results.of("base-to-new"))).items():
        if len(scenes) > 1:
            yield _scatter(Scene(backbone, f"average of {len(scenes)} datasets", shots), scenes)
        for scene in scenes:
            yield dataclasses.replace(_scatter(scene, [scene]), folded=len(scenes) > 1)
    opened = [scene for scene in grouped(results.of("base-to-new")) if any(map(joint_measures, scene.runs))]
    yield from (dataclasses.replace(_open_figure(scene), folded=len(opened) > 2) for scene in opened)
    yield from (_shots_figure(scenes) for scenes in series(results) if len(scenes) > 1)


# ------------------------------------------------------------------------------------------------- base against new
def _scatter(average: Scene, scenes: Sequence[Scene]) -> Figure:
    """Return the zero-shot point, and the moves of every method that was run on all of the scenes."""

    def point(average: Score | None) -> Point | None:
        return (average.base.value, average.new.value) if average and average.base and average.new else None

    zero = point(over_datasets(zero_shot(scene.runs) for scene in scenes))
    ends = {method: (point(without), point(with_sar)) for method, (without, with_sar) in on_all(scenes).items()}
    moves = {method: pair for method, pair in ends.items() if any(pair)}
    return Figure(
        key=f"base-new-{average.slug}",
        section="base-to-new",
        title=f"Base against new accuracy: {average}",
        caption=(
            "Up and to the right is better. An arrow leads from a method to the same method with SAR; the cross is the "
            "hand-crafted prompt, and a method below its line has lost new classes. Grey curves: equal harmonic mean."
        ),
        paint=lambda canvas: _paint_scatter(canvas, zero, moves),
        size=(8.4, 6.0),
    )


def _paint_scatter(canvas: Canvas, zero: Point | None, moves: Moves) -> None:
    axes = canvas.subplots()
    points = [p for pair in moves.values() for p in pair if p] + ([zero] if zero else [])
    if not points:
        return
    _paint_means(axes, points)
    lines = [(start, end) for start, end in moves.values() if start and end]
    for start, end in lines:
        arrow: Any = {"arrowstyle": "-|>", "color": MUTED, "shrinkA": 4, "shrinkB": 5}
        axes.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=2)
    if zero:
        axes.axhline(zero[1], color=MUTED, dashes=DASHED, zorder=1)
        left, right = axes.get_xlim()
        lines.append(((left, zero[1]), (right, zero[1])))
    for label, ends, colour, marker in (
        ("without SAR", [without for without, _ in moves.values()], WITHOUT, "o"),
        ("with SAR", [with_sar for _, with_sar in moves.values()], WITH, "^"),
        ("zero-shot", [zero], INK, "X"),
    ):
        marked = [point for point in ends if point]
        axes.plot([x for x, _ in marked], [y for _, y in marked], marker, color=colour, ms=8, zorder=3, label=label)
    canvas.legend(loc="outside upper left", ncols=3)
    tips = {method_name(method): with_sar or without for method, (without, with_sar) in moves.items()}
    _paint_names(axes, {name: tip for name, tip in tips.items() if tip}, points, lines)


def _paint_means(axes: Axes, points: Sequence[Point]) -> None:
    """Set limits around points, and draw the curves of equal harmonic mean."""
    limits = []
    for values in zip(*points, strict=True):
        margin = max(0.14 * (max(values) - min(values)), 1.0)
        limits.append((max(0.0, min(values) - margin), min(101.0, max(values) + margin)))
    axes.set(xlim=limits[0], ylim=limits[1], xlabel="base accuracy, %", ylabel="new accuracy, %")
    base, new = np.meshgrid(*(np.linspace(*ends, 200) for ends in limits))
    means = 2 * base * new / np.maximum(base + new, 1e-9)
    step = next((s for s in (1, 2, 5, 10) if float(np.ptp(means)) / s <= 9), 20)
    levels = np.arange(np.ceil(means.min() / step) * step, means.max(), step)
    curves = axes.contour(base, new, means, levels=levels, colors=GRID, linewidths=1, zorder=0)
    axes.clabel(curves, fmt="H %.0f", fontsize="small", colors=MUTED)


def _paint_names(
    axes: Axes, tips: Mapping[str, Point], points: Sequence[Point], lines: Sequence[tuple[Point, Point]]
) -> None:
    """Draw names near their points, clear of points, lines and one another; the highest choose first."""
    named = sorted(tips.items(), key=lambda pair: -pair[1][1])
    textalloc.allocate(
        axes,
        [x for _, (x, _) in named],
        [y for _, (_, y) in named],
        [textwrap.fill(name, LINE) for name, _ in named],
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
def _open_figure(scene: Scene) -> Figure:
    """Draw joint new against joint base accuracy, while an offset of the base logits runs."""
    methods = {m: sides for m, sides in scene.methods.items() if any(map(joint_measures, [*sides[0], *sides[1]]))}

    def line(axes: Axes, measures: Mapping[str, Any], colour: str, marker: str) -> None:
        (curve,) = axes.plot(measures["curve"]["base"], measures["curve"]["new"], color=colour)
        curve.sticky_edges.x[:] = curve.sticky_edges.y[:] = [0]  # axes start at 0, those of later panels count too
        axes.plot(measures["base_accuracy"], measures["new_accuracy"], marker, color=colour, zorder=3)

    def paint(axes: Axes, method: str) -> None:
        runs = [run for side in methods[method] for run in side]
        for measures in [m for run in runs if (m := joint_measures(run, "zero_shot"))][:1]:
            line(axes, measures, MUTED, "X")
        for side, (_, colour, marker) in zip(methods[method], SIDES, strict=True):
            for measures in filter(None, map(joint_measures, side)):
                line(axes, measures, colour, marker)

    return _panels(
        key=f"open-{scene.slug}",
        section="open",
        title=f"Joint accuracy over base and new classes on {scene}",
        caption=(
            "A line for each seed: an offset taken off the base logits moves a classifier along it, and the mark "
            "is its place without one. Up and to the right is better; AUSUC is the area below."
        ),
        methods=list(methods),
        paint_panel=paint,
        labels=("joint base accuracy, %", "joint new accuracy, %"),
        zero=Line2D([], [], color=MUTED, marker="X", label="zero-shot"),
    )


def _shots_figure(scenes: Sequence[Scene]) -> Figure:
    """Draw accuracy against the number of shots of one dataset."""
    by_shots = [scene.methods for scene in scenes]
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

    return _panels(
        key=slug(f"shots-{dataset}-{backbone}"),
        section="few-shot",
        title=f"Accuracy against shots on {dataset}, {backbone}",
        caption="Mean over seeds; the band is one standard deviation to each side. Dashed: the hand-crafted prompt.",
        methods=list(dict.fromkeys(method for sides in by_shots for method in sides)),
        paint_panel=paint,
        labels=("shots", "accuracy, %"),
        zero=Line2D([], [], color=MUTED, dashes=DASHED, label="zero-shot"),
    )


def _panels(
    *,
    methods: Sequence[str],
    paint_panel: Callable[[Axes, str], None],
    labels: tuple[str, str],
    zero: Line2D,
    **texts: str,
) -> Figure:
    """Return a grid of panels with the same limits, at most four in a row, with one legend above.

    Args:
        methods: one for each panel.
        paint_panel: draws a method's panel.
        labels: of the horizontal and the vertical axis.
        zero: the legend's line for zero-shot.
        texts: of the figure.
    """
    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)

    def paint(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for number, axes in enumerate(grid.flat):
            if number >= len(methods):
                axes.set_axis_off()
                continue
            paint_panel(axes, methods[number])
            axes.grid(axis="y")
            axes.set_title(textwrap.fill(method_name(methods[number]), LINE))
            if number >= len(methods) - columns:
                axes.set_xlabel(labels[0])
                axes.tick_params(labelbottom=True)
            if number % columns == 0:
                axes.set_ylabel(labels[1])
        sides = [Line2D([], [], color=colour, marker=shape, label=name) for name, colour, shape in SIDES]
        canvas.legend(handles=[*sides, zero], loc="outside upper left", ncols=3)

    return Figure(paint=paint, size=(max(6.4, 3.2 * columns), 2.75 * rows + 0.55), **texts)  # type: ignore[arg-type]
