"""The look of figures, measured on what was drawn: legends show what is there, and nothing covers anything else."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from support.results import blocks, result, similarity, write

from sar_train.report import charts, heatmap, scatter
from sar_train.report.results import read

METHODS = ("coop", "kgcoop", "tcp")
KINDS = ("scatter", "heat maps", "one ranking", "shots", "losses")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, drawing: Any) -> dict[str, Canvas]:
    """Return a figure of each kind."""
    folder = tmp_path_factory.mktemp("results")
    hand, names = blocks([3, 3, 3]), [f"name {i}" for i in range(9)]
    for place, method in enumerate(METHODS):
        for sar in (0, 1):
            name, base = method + "+sar" * sar, 80.0 + place
            alike = {"similarities": similarity(names, 5, hand, hand * (0.8 + 0.1 * sar))} if method == "coop" else {}
            history = [{"epoch": e, "cross_entropy": 1 / e} | {"regulariser": 0.5 / e} for e in (1, 2, 3)]
            write(folder, result(name, base=base, new=50.0 + 4 * sar, open_=(base - 9, 30), history=history, **alike))
            for shots in (1, 16):
                few = {"protocol": "few-shot", "new": None, "zero_shot": (54.0, None), "history": None}
                write(folder, result(name, shots=shots, base=60.0 + shots + 5 * sar, **few))
    results = read(folder)
    with drawing() as canvases:
        figures = [figure for maker in (scatter, heatmap, charts) for figure in maker.figures(results)]
    for canvas in canvases:
        canvas.draw_without_rendering()
    sections = ["base-to-new", "similarity", "open", "few-shot", "curves"]
    assert [figure.section for figure in figures] == sections
    return dict(zip(KINDS, canvases, strict=True))


@pytest.fixture(params=KINDS)
def canvas(request: pytest.FixtureRequest, drawn: dict[str, Canvas]) -> Canvas:
    return drawn[request.param]


def legends(canvas: Canvas) -> list[Legend]:
    return canvas.legends + [legend for axes in canvas.axes if (legend := axes.get_legend())]


def frames(canvas: Canvas) -> list[Bbox]:
    return [axes.get_window_extent() for axes in canvas.axes if axes.axison]


def texts(canvas: Canvas) -> list[Text]:
    """Return titles, labels and names; ticks are matplotlib's own affair."""
    found = [text for legend in legends(canvas) for text in legend.get_texts()]
    for axes in canvas.axes:
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label, *axes.get_yticklabels()]
        found += [text for text in axes.get_children() if isinstance(text, Text)]
    return [text for text in found if text.get_text().strip(" 0123456789.")]


def looks(line: Line2D) -> tuple[object, ...]:
    """Return the stroke of a line and the size of its marks."""
    stroke = (line.get_linestyle(), line.get_linewidth()) if line.get_linestyle() != "None" else None
    mark = line.get_marker() if line.get_marker() not in ("None", "", None) else None
    return stroke, mark and (mark, line.get_markersize(), line.get_markeredgewidth())


def test_legends_show_strokes_and_marks_as_they_are_drawn(canvas: Canvas) -> None:
    shown = [line for legend in canvas.legends for line in legend.get_lines()]
    lines = [line for axes in canvas.axes for line in axes.lines]
    assert shown or canvas.axes[0].images
    for handle in shown:
        for part, wanted in enumerate(looks(handle)):
            same = [line for line in lines if line.get_color() == handle.get_color()] or lines
            assert wanted is None or wanted in {looks(line)[part] for line in same}, handle.get_label()


def test_strokes_are_thin_and_frames_and_grids_thinner(canvas: Canvas) -> None:
    strokes = [line.get_linewidth() for axes in canvas.axes for line in axes.lines if line.get_linestyle() != "None"]
    assert all(1 <= width <= 2 for width in strokes)
    for axes in canvas.axes:
        around = [spine.get_linewidth() for spine in axes.spines.values()]
        grid = [line.get_linewidth() for line in (*axes.get_xgridlines(), *axes.get_ygridlines())]
        assert all(0 < width < 1 for width in (*around, *grid))


def test_text_can_be_read_and_none_is_large(canvas: Canvas) -> None:
    sizes = [float(text.get_fontsize()) for text in texts(canvas)]
    assert 8 <= min(sizes) <= max(sizes) <= 11


def test_no_text_covers_another_one_or_leaves_the_figure(canvas: Canvas) -> None:
    boxes = [(text, text.get_window_extent()) for text in dict.fromkeys(texts(canvas))]
    for text, box in boxes:
        assert canvas.bbox.x0 - 2 < box.x0 and box.x1 < canvas.bbox.x1 + 2, text
        assert canvas.bbox.y0 - 2 < box.y0 and box.y1 < canvas.bbox.y1 + 2, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), (one, other)


def test_the_legend_of_a_figure_stands_above_all_panels_on_one_line(canvas: Canvas) -> None:
    for legend in canvas.legends:
        box = legend.get_window_extent()
        assert box.y0 >= max(frame.y1 for frame in frames(canvas))
        assert len({round(text.get_window_extent().y0) for text in legend.get_texts()}) == 1


def test_panels_have_a_common_size_and_room(drawn: dict[str, Canvas]) -> None:
    """In inches."""
    for kind, wide, high in (
        ("scatter", (7, 8), (4.7, 5.6)),
        ("one ranking", (2.4, 3.2), (1.7, 2.5)),
        ("shots", (2.4, 3.2), (1.7, 2.5)),
        ("losses", (2.2, 3.2), (1.7, 2.5)),
    ):
        sizes = [(box.width / drawn[kind].dpi, box.height / drawn[kind].dpi) for box in frames(drawn[kind])]
        assert all(wide[0] < width < wide[1] and high[0] < height < high[1] for width, height in sizes), (kind, sizes)
    maps = [axes.get_window_extent() for axes in drawn["heat maps"].axes if axes.images and axes.get_title(loc="left")]
    sides = {round(side / drawn["heat maps"].dpi, 2) for box in maps for side in (box.width, box.height)}
    assert max(sides) - min(sides) < 0.05
    assert 3.2 < min(sides) < 3.9


def test_a_map_has_thin_strips_at_its_upper_and_left_edge_and_a_bar_beside_its_row(drawn: dict[str, Canvas]) -> None:
    canvas = drawn["heat maps"]
    maps = [axes for axes in canvas.axes if axes.images and axes.get_title(loc="left")]
    assert len(maps) == 5
    for axes in maps:
        box = axes.get_window_extent()
        above, left = (edge.get_window_extent() for edge in axes.child_axes)
        assert (above.x0, above.x1, left.y0, left.y1) == pytest.approx((box.x0, box.x1, box.y0, box.y1))
        assert 0 < above.y0 - box.y1 < 0.02 * box.height
        assert 0 < box.x0 - left.x1 < 0.02 * box.width
        assert 0.01 < above.height / box.height < 0.04
        assert above.height == pytest.approx(left.width, abs=2)
    first = maps[0]
    names, edge = first.get_yticklabels(), first.child_axes[1].get_window_extent().x0
    assert all(0 < edge - name.get_window_extent().x1 < 8 for name in names)
    assert {mark.get_markersize() for mark in first.get_yticklines()} == {0}
    bars = [axes for axes in canvas.axes if axes.get_label() == "<colorbar>"]
    for bar, row in zip(bars, (maps[:3], maps[3:]), strict=True):
        box, beside = bar.get_window_extent(), row[-1].get_window_extent()
        assert 0 < box.x0 - beside.x1 < 0.1 * beside.width
        assert (box.y0 + box.y1) / 2 == pytest.approx((beside.y0 + beside.y1) / 2, abs=2)
        assert 0.7 < box.height / beside.height < 0.8
        assert 20 < box.height / box.width < 40


def test_points_lie_over_arrows_and_these_over_lines_and_curves(drawn: dict[str, Canvas]) -> None:
    (axes,) = drawn["scatter"].axes
    marks = [line.get_zorder() for line in axes.lines if line.get_marker() != "None"]
    dashes = [line.get_zorder() for line in axes.lines if line.get_linestyle() == "--"]
    arrows = [text.get_zorder() for text in axes.texts if isinstance(text, Annotation)]
    names = [text.get_zorder() for text in axes.texts if text.get_text().startswith(("CoOp", "KgCoOp", "TCP"))]
    curves = [found.get_zorder() for found in axes.collections if not isinstance(found, PathCollection)]
    layers = [curves, dashes, arrows, marks, names]
    assert all(layers)
    assert all(max(below) < min(above) for below, above in itertools.pairwise(layers))
    for panel in drawn["one ranking"].axes:
        if panel.axison:
            marks, curves = ([line.get_zorder() for line in panel.lines if len(line.get_xdata()) == n] for n in (1, 3))
            assert max(curves) < min(marks)


def test_grids_lie_behind_and_show_heights(drawn: dict[str, Canvas]) -> None:
    for kind in ("one ranking", "shots", "losses"):
        for axes in drawn[kind].axes:
            if axes.axison:
                assert axes.get_axisbelow() is True
                assert all(line.get_visible() for line in axes.get_ygridlines())
                assert not any(line.get_visible() for line in axes.get_xgridlines())
