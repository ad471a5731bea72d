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

from sar_train.report.figure import DASHED, INK, NO_BREAK, WITH, WITHOUT, Figure, wrapped
from sar_train.report.results import ResultSet
from sar_train.report.similarities import Matrix, Similarities, similarities

MOST = 24
"""The most heat maps in a report; each takes one or two hundred kilobytes."""
MOST_LABELS = 26
BASE, NEW = "#7b8591", "#0a9d74"
"""Colours along the edges; not the page's, as images inside a figure do not change in a dark scheme."""


def figures(results: ResultSet) -> list[Figure]:
    """Return heat maps of each method and scene; the first of every scene come first, the others are folded away."""
    first: dict[tuple[str, object], Similarities] = {}
    every = list(similarities(results))
    for cosines in every:
        first.setdefault((cosines.protocol, cosines.scene), cosines)
    shown = [*first.values(), *(cosines for cosines in every if cosines not in first.values())]
    return [_figure(cosines, folded=rank >= len(first)) for rank, cosines in enumerate(shown[:MOST])]


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
    if any(len(ranking) < 2 or np.ptp(ranking) == 0 for ranking in ranks):
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def _figure(cosines: Similarities, *, folded: bool) -> Figure:
    """Return two rows of panels: the cosines, and below the changes, beside a plot of every pair."""
    order = clustered(cosines.handcrafted)
    correlations = [
        f"{name} {rank_correlation(cosines.handcrafted, matrix):.2f}" for name, matrix in cosines.learned.items()
    ]
    strips = "; the strips along the edges mark base and new classes" if cosines.base < len(order) else ""
    return Figure(
        key=f"similarity-{cosines.key}",
        section="similarity",
        title=f"Similarities among {len(cosines.names)} class names: {cosines.title}",
        caption=(
            "Above: cosines between class names, ordered by clustering the hand-crafted ones, in one colour scale"
            f"{strips}. Below: what training changed, and every pair as a point, which "
            "lies on the line where nothing changed. ρ is Spearman's rank correlation with the hand-crafted cosines."
        ),
        alt=(
            f"Heat maps of the similarities of {len(cosines.names)} class names, hand-crafted and learned. Rank "
            f"correlation with the hand-crafted: {', '.join(correlations)}."
        ),
        paint=lambda canvas: _paint(canvas, cosines, order),
        size=(4.1 * (1 + len(cosines.learned)) + 1.2, 8.6),
        folded=folded,
        beside=f"pairs-{cosines.key}",
        layout="compressed",
    )


def _paint(canvas: Canvas, cosines: Similarities, order: list[int]) -> None:
    learned = cosines.learned
    axes: Any = canvas.subplots(2, 1 + len(learned), squeeze=False)
    off = ~np.eye(len(order), dtype=bool)
    values = np.concatenate([matrix[off] for matrix in (cosines.handcrafted, *learned.values())])
    low, high = np.quantile(values, [0.005, 0.998]) if len(values) else (0, 1)
    changes = [matrix - cosines.handcrafted for matrix in learned.values()]
    reach = max((float(np.quantile(np.abs(change[off]), 0.995)) for change in changes), default=0.0) or 0.01
    above = _map(axes[0, 0], "hand-crafted", cosines.handcrafted, order, "viridis", low, high)
    for column, ((name, matrix), change) in enumerate(zip(learned.items(), changes, strict=True), 1):
        rho = rank_correlation(cosines.handcrafted, matrix)
        _map(axes[0, column], wrapped(f"{name}, ρ{NO_BREAK}={NO_BREAK}{rho:.2f}"), matrix, order, "viridis", low, high)
        below = _map(axes[1, column], wrapped(f"{name}: change"), change, order, "PuOr_r", -reach, reach)
    _names(axes[0, 0], cosines, order)
    _points(axes[1, 0], cosines)
    for row, image, label in ((0, above, "cosine"), (1, below, "change of cosine")):
        bar = canvas.colorbar(image, ax=axes[row, :], shrink=0.75, aspect=28, pad=0.01, label=label)
        bar.outline.set_visible(False)
    if cosines.base < len(order):
        for panel in (axes[0, 0], *axes[:, 1:].flat):
            _strips(panel, np.array([k >= cosines.base for k in order], dtype=float))
        handles = [Patch(color=colour, label=name) for colour, name in ((BASE, "base"), (NEW, "new"))]
        box: Any = {"loc": "lower right", "bbox_to_anchor": (1, 1.015)}
        axes[0, 0].legend(handles=handles, ncols=2, fontsize="small", handlelength=0.9, **box)


def _map(axes: Axes, title: str, matrix: Matrix, order: list[int], colours: str, low: float, high: float) -> Any:
    ordered = matrix[np.ix_(order, order)].copy()
    np.fill_diagonal(ordered, np.nan)
    image = axes.imshow(ordered, cmap=colours, vmin=low, vmax=high, interpolation="none")
    axes.set(xticks=[], yticks=[], frame_on=False, title=title)
    return image


def _strips(axes: Axes, kinds: Matrix) -> None:
    """Mark base and new classes, 0 and 1 in ``kinds``, along the upper and the left edge."""
    for box, strip in (((0, 1.008, 1, 0.022), kinds[None]), ((-0.03, 0, 0.022, 1), kinds[:, None])):
        edge = axes.inset_axes(box)
        edge.imshow(strip, cmap=ListedColormap([BASE, NEW]), aspect="auto", interpolation="none", vmin=0, vmax=1)
        edge.set_axis_off()


def _names(axes: Axes, cosines: Similarities, order: list[int]) -> None:
    """Write names beside the first panel, as many as there is room for."""
    step = -(-len(order) // MOST_LABELS)
    rows = list(range(step // 2, len(order), step))
    names = [cosines.names[order[row]] for row in rows]
    axes.set_yticks(rows, [name if len(name) <= 18 else f"{name[:17]}…" for name in names], fontsize="small")
    axes.tick_params(axis="y", length=0, pad=9 if cosines.base < len(order) else 3)


def _points(axes: Axes, cosines: Similarities) -> None:
    """Plot the learned against the hand-crafted cosine of every pair."""
    upper = np.triu_indices(len(cosines.names), 1)
    for name, matrix in cosines.learned.items():
        colour, marker = (WITH, "^") if name.endswith(" + SAR") else (WITHOUT, "o")
        style: Any = {"color": colour, "ms": 2, "mew": 0, "alpha": 0.4, "rasterized": True, "label": wrapped(name)}
        axes.plot(cosines.handcrafted[upper], matrix[upper], marker, **style)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=INK, dashes=DASHED)
    axes.set(xlim=(low, high), xlabel="hand-crafted cosine", ylabel="learned cosine", title="Every pair of names")
    for handle in axes.legend(loc="best", markerscale=4, handletextpad=0.2, fontsize="small").legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    axes.grid()
    axes.set_box_aspect(1)
