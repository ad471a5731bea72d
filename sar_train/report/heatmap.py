"""Heat maps of class similarities: hand-crafted, learned without SAR and with it, in one order and one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from sar_train.report.disturbed import SECTION, Matrix, Similarities, similarities
from sar_train.report.results import ResultSet
from sar_train.report.style import DASHED, INK, WITH, WITHOUT, Figure, draw

MOST = 24
"""The most heat maps in a report; each takes one or two hundred kilobytes."""
MOST_LABELS = 26
BASE, NEW = "#7b8591", "#0a9d74"
"""Colours along the edges; not the page's, as images inside a figure do not change in a dark scheme."""


def figures(results: ResultSet) -> list[Figure]:
    """Return heat maps of each method and scene; the first of every scene come first, the others are folded away."""
    first: dict[tuple[str, object], Similarities] = {}
    every = similarities(results)
    for one in every:
        first.setdefault((one.protocol, one.scene), one)
    shown = [*first.values(), *(one for one in every if one not in first.values())]
    return [figure(one, folded=place >= len(first)) for place, one in enumerate(shown[:MOST])]


def clustered(cosines: Matrix) -> list[int]:
    """Return an order in which similar names are neighbours: average linkage, optimal order of leaves."""
    if len(cosines) < 3:
        return list(range(len(cosines)))
    distances = squareform(np.clip(1 - cosines, 0, None), checks=False)
    return [int(leaf) for leaf in leaves_list(linkage(distances, "average", optimal_ordering=True))]


def rank_correlation(first: Matrix, second: Matrix) -> float:
    """Return Spearman's correlation of the off-diagonal cosines of (C, C) matrices; NaN if one is constant."""
    upper = np.triu_indices(len(first), 1)
    ranks = [rankdata(matrix[upper]) for matrix in (first, second)]
    if any(len(found) < 2 or np.ptp(found) == 0 for found in ranks):
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def figure(found: Similarities, *, folded: bool = False) -> Figure:
    """Return two rows of panels: the cosines, and below the changes, beside a plot of every pair."""
    order = clustered(found.handcrafted)
    correlations = [f"{name} {rank_correlation(found.handcrafted, matrix):.2f}" for name, matrix in found.learned()]
    strips = "; the strips along the edges mark base and new classes" if found.base < len(order) else ""
    caption = (
        "Above: cosines between class names, ordered by clustering the hand-crafted ones, in one colour scale"
        f"{strips}. Below: what training changed, and every pair as a point, which "
        "lies on the line where nothing changed. ρ is Spearman's rank correlation with the hand-crafted cosines."
    )
    alt = (
        f"Heat maps of the similarities of {len(found.names)} class names, hand-crafted and learned. Rank correlation "
        f"with the hand-crafted: {', '.join(correlations)}."
    )
    planned = Figure(
        key=f"similarity-{found.key}",
        section=SECTION,
        title=f"Similarities among {len(found.names)} class names: {found.title}",
        caption=caption,
        alt=alt,
        folded=folded,
        beside=f"pairs-{found.key}",
    )
    size = 4.1 * (1 + len(found.learned())) + 1.2, 8.6
    return draw(planned, lambda canvas: _paint(canvas, found, order), size, "compressed")


def _paint(canvas: Canvas, found: Similarities, order: list[int]) -> None:
    panels = [("hand-crafted", found.handcrafted), *found.learned()]
    axes: Any = canvas.subplots(2, len(panels), squeeze=False)
    off = ~np.eye(len(order), dtype=bool)
    shown = np.concatenate([matrix[off] for _, matrix in panels])
    low, high = np.quantile(shown, [0.005, 0.998]) if len(shown) else (0, 1)
    changes = [matrix - found.handcrafted for _, matrix in panels[1:]]
    reach = max((float(np.quantile(np.abs(change[off]), 0.995)) for change in changes), default=0.0) or 0.01
    for place, (name, matrix) in enumerate(panels):
        rho = f", ρ = {rank_correlation(found.handcrafted, matrix):.2f}" if place else ""
        above = _map(axes[0, place], matrix, order, "viridis", low, high)
        axes[0, place].set_title(name + rho)
        if place:
            below = _map(axes[1, place], changes[place - 1], order, "PuOr_r", -reach, reach)
            axes[1, place].set_title(f"{name}: change")
        _strips(axes[0, place], found, order)
    _labels(axes[0, 0], found, order)
    if found.base < len(order):
        handles = [Patch(color=colour, label=name) for colour, name in ((BASE, "base"), (NEW, "new"))]
        axes[0, 0].legend(
            handles=handles, loc="lower right", bbox_to_anchor=(1, 1.015), ncols=2, fontsize="small", handlelength=0.9
        )
    _points(axes[1, 0], found)
    for row, image, label in ((0, above, "cosine"), (1, below, "change of cosine")):
        bar = canvas.colorbar(image, ax=axes[row, :], shrink=0.75, aspect=28, pad=0.01, label=label)
        bar.outline.set_visible(False)
    for place in range(1, len(panels)):
        _strips(axes[1, place], found, order)


def _map(axes: Axes, matrix: Matrix, order: list[int], colours: str, low: float, high: float) -> Any:
    ordered = matrix[np.ix_(order, order)].copy()
    np.fill_diagonal(ordered, np.nan)
    image = axes.imshow(ordered, cmap=colours, vmin=low, vmax=high, interpolation="none")
    axes.set(xticks=[], yticks=[], frame_on=False)
    return image


def _strips(axes: Axes, found: Similarities, order: list[int]) -> None:
    """Mark base and new classes along the upper and the left edge."""
    if found.base >= len(order):
        return
    kinds = np.array([place >= found.base for place in order], dtype=float)
    for box, strip in (((0, 1.008, 1, 0.022), kinds[None]), ((-0.03, 0, 0.022, 1), kinds[:, None])):
        edge = axes.inset_axes(box)
        edge.imshow(strip, cmap=ListedColormap([BASE, NEW]), aspect="auto", interpolation="none", vmin=0, vmax=1)
        edge.set_axis_off()


def _labels(axes: Axes, found: Similarities, order: list[int]) -> None:
    """Write names beside the first panel, as many as there is room for."""
    step = -(-len(order) // MOST_LABELS)
    places = list(range(step // 2, len(order), step))
    names = [found.names[order[place]] for place in places]
    axes.set_yticks(places, [name if len(name) <= 18 else f"{name[:17]}…" for name in names], fontsize="small")
    axes.tick_params(axis="y", length=0, pad=9 if found.base < len(order) else 3)


def _points(axes: Axes, found: Similarities) -> None:
    """Plot the learned against the hand-crafted cosine of every pair."""
    upper = np.triu_indices(len(found.names), 1)
    x = found.handcrafted[upper]
    styles = [(WITHOUT, "o"), (WITH, "^")][0 if found.without is not None else 1 :]
    for (name, matrix), (colour, marker) in zip(found.learned(), styles, strict=False):
        axes.plot(x, matrix[upper], marker, color=colour, ms=2, mew=0, alpha=0.4, rasterized=True, label=name)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=INK, dashes=DASHED)
    axes.set_xlim(low, high)
    axes.set(xlabel="hand-crafted cosine", ylabel="learned cosine", title="Every pair of names")
    legend = axes.legend(loc="best", markerscale=4, handletextpad=0.2, fontsize="small")
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    axes.grid()
    axes.set_box_aspect(1)
