"""Base against new, read from the artists of the figure."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from support.results import result, tables, write

from sar_train.report import scatter
from sar_train.report.figure import GRID, INK, MUTED, WITH, WITHOUT, Figure
from sar_train.report.results import read
from sar_train.report.wording import method_name

METHODS = ("coop", "cocoop", "prograd", "kgcoop", "maple", "promptsrc", "tcp", "dept", "dept:kgcoop")


def draw(folder: Path) -> list[Figure]:
    return list(scatter.figures(read(folder)))


def move(folder: Path, method: str, without: tuple[float, float], with_sar: tuple[float, float]) -> None:
    for name, (base, new) in ((method, without), (f"{method}+sar", with_sar)):
        write(folder, result(name, base=base, new=new))


def markers(axes: Axes) -> dict[tuple[float, float], tuple[str, str]]:
    """Return the colour and shape of every point by its place."""
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    return {
        (float(x), float(y)): (to_hex(line.get_color()), str(line.get_marker()))
        for line in lines
        for x, y in zip(*line.get_data(), strict=True)
    }


def names(axes: Axes) -> list[Text]:
    """Return the names of methods; arrows are annotations without a text."""
    return [text for text in axes.texts if text.get_text() and text not in levels(axes)]


def threads(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if to_hex(line.get_color()) == GRID]


def levels(axes: Axes) -> list[Text]:
    return [text for text in axes.texts if text.get_text().strip().startswith("H ")]


def harmonic(base: float, new: float) -> float:
    return 0.0 if base + new == 0 else 2 * base * new / (base + new)


def spread_out(folder: Path) -> None:
    """Write one method far above zero-shot and one below it."""
    move(folder, "coop", (80.0, 40.0), (90.0, 50.0))
    move(folder, "kgcoop", (64.0, 57.0), (66.0, 70.0))


def test_one_figure_a_dataset_and_their_average_first(tmp_path: Path) -> None:
    for dataset in ("caltech101", "dtd"):
        write(tmp_path, result(dataset=dataset, new=50.0))
        write(tmp_path, result("coop+sar", dataset=dataset, new=55.0))
    found = draw(tmp_path)
    assert [figure.title.partition(": ")[2].partition(",")[0] for figure in found] == [
        "average of 2 datasets",
        "caltech101",
        "dtd",
    ]
    assert [figure.folded for figure in found] == [False, True, True]
    assert found[0].alt == "Base against new accuracy of CoOp. SAR raised new accuracy for CoOp."


def test_one_dataset_is_not_folded_and_falls_are_no_rises(tmp_path: Path) -> None:
    move(tmp_path, "coop", (80.0, 50.0), (80.0, 55.0))
    move(tmp_path, "tcp", (80.0, 50.0), (85.0, 50.0))
    (figure,) = draw(tmp_path)
    assert not figure.folded
    assert figure.section == "base-to-new"
    assert figure.key == "base-new-caltech101-16shots-sar-mini"
    assert figure.alt.endswith("of CoOp and TCP. SAR raised new accuracy for CoOp.")


def test_points_lie_where_the_accuracies_are(tmp_path: Path, canvases: list[Canvas]) -> None:
    move(tmp_path, "coop", (80.0, 40.0), (90.0, 50.0))
    draw(tmp_path)
    (axes,) = canvases[0].axes
    assert markers(axes) == {
        (60.0, 58.0): (INK, "X"),
        (80.0, 40.0): (WITHOUT, "o"),
        (90.0, 50.0): (WITH, "^"),
    }
    (arrow,) = [text for text in axes.texts if isinstance(text, Annotation) and not text.get_text()]
    assert (arrow.xyann, arrow.xy) == ((80.0, 40.0), (90.0, 50.0))
    (zero,) = [line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_ydata()) == 2]
    assert list(zero.get_ydata()) == [58.0, 58.0]
    assert to_hex(zero.get_color()) == MUTED
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("base accuracy, %", "new accuracy, %")
    (legend,) = canvases[0].legends
    shown = {
        text.get_text(): (to_hex(handle.get_color()), handle.get_marker())
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if isinstance(handle, Line2D)
    }
    assert shown == {"without SAR": (WITHOUT, "o"), "with SAR": (WITH, "^"), "zero-shot": (INK, "X")}
    sizes = {line.get_marker(): line.get_markersize() for line in axes.lines if line.get_marker() != "None"}
    assert {line.get_marker(): line.get_markersize() for line in legend.get_lines()} == sizes


def test_averages_are_over_methods_that_every_dataset_has(tmp_path: Path, canvases: list[Canvas]) -> None:
    for dataset, shift in (("caltech101", 0.0), ("dtd", -20.0)):
        for name, new in (("coop", 40.0), ("coop+sar", 50.0)):
            write(tmp_path, result(name, dataset=dataset, base=80.0 + shift, new=new, zero_shot=(60.0 + shift, 58.0)))
    write(tmp_path, result("kgcoop", dataset="dtd", base=30.0, new=30.0))
    draw(tmp_path)
    (axes,) = canvases[0].axes
    assert {place: shape for place, (_, shape) in markers(axes).items()} == {
        (50.0, 58.0): "X",
        (70.0, 40.0): "o",
        (70.0, 50.0): "^",
    }


def test_an_average_shows_no_other_number_than_its_table(tmp_path: Path, canvases: list[Canvas]) -> None:
    for dataset, base in (("dtd", 70.0), ("eurosat", 90.0), ("ucf101", 20.0)):
        for name in ("coop", "kgcoop") if dataset == "ucf101" else ("coop", "coop+sar", "kgcoop"):
            write(tmp_path, result(name, dataset=dataset, base=base, new=50.0))
    draw(tmp_path)
    assert [[cell.text for cell in row[:5]] for row in tables(tmp_path, "base-to-new")[0].rows[1:]] == [
        ["CoOp", "80.0", "50.0", "61.5", "2"],  # over the two datasets that both sides have
        ["KgCoOp", "60.0", "50.0", "54.5", "3"],
    ]
    assert [text.get_text() for text in names(canvases[0].axes[0])] == ["KgCoOp"]


@pytest.mark.parametrize(
    ("without", "with_sar", "base", "new"),
    [
        ((80.0, 40.0), (90.0, 50.0), (60 - 4.2, 90 + 4.2), (40 - 2.52, 58 + 2.52)),  # 14 % of what they span
        ((62.0, 58.0), (61.0, 57.0), (59.0, 63.0), (56.0, 59.0)),  # a point at least
        ((99.0, 2.0), (60.0, 98.0), (60 - 5.46, 101.0), (0.0, 101.0)),  # not far beyond what there can be
    ],
    ids=["wide", "near", "at the ends"],
)
def test_the_axes_end_a_little_beyond_the_points(
    tmp_path: Path,
    canvases: list[Canvas],
    without: tuple[float, float],
    with_sar: tuple[float, float],
    base: tuple[float, float],
    new: tuple[float, float],
) -> None:
    move(tmp_path, "coop", without, with_sar)
    draw(tmp_path)
    (axes,) = canvases[0].axes
    assert axes.get_xlim() == pytest.approx(base)
    assert axes.get_ylim() == pytest.approx(new)


def test_grey_curves_join_points_of_one_harmonic_mean(tmp_path: Path, canvases: list[Canvas]) -> None:
    spread_out(tmp_path)
    draw(tmp_path)
    (axes,) = canvases[0].axes
    (curves,) = [found for found in axes.collections if isinstance(found, ContourSet)]
    assert {to_hex(colour) for colour in curves.get_edgecolor()} == {GRID}
    drawn = 0
    for level, path in zip(curves.levels, curves.get_paths(), strict=True):
        for base, new in path.vertices:
            assert harmonic(base, new) == pytest.approx(level, abs=0.05)
            drawn += 1
    assert drawn > 100


def test_each_curve_is_named_at_the_edge_where_it_ends(tmp_path: Path, canvases: list[Canvas]) -> None:
    spread_out(tmp_path)
    draw(tmp_path)
    (axes,) = canvases[0].axes
    (_, right), (_, high) = axes.get_xlim(), axes.get_ylim()
    found = levels(axes)
    values = [float(text.get_text().split()[1]) for text in found]
    assert values == [55, 60, 65, 70, 75, 80]
    for text, value in zip(found, values, strict=True):
        base, new = text.get_position()
        assert harmonic(base, new) == pytest.approx(value)
        assert base == pytest.approx(right) or new == pytest.approx(high)
        assert to_hex(text.get_color()) == MUTED


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [(59.5, 60.5, 1), (56.5, 63.5, 1), (56.25, 63.75, 2), (45.0, 75.0, 5), (41.0, 79.0, 10), (5.0, 99.0, 20)],
)
def test_there_are_a_few_curves_however_far_the_points_lie_apart(
    tmp_path: Path, canvases: list[Canvas], low: float, high: float, step: int
) -> None:
    write(tmp_path, result(base=high, new=high, zero_shot=(low, low)))
    draw(tmp_path)
    (axes,) = canvases[0].axes
    (curves,) = [found for found in axes.collections if isinstance(found, ContourSet)]
    assert np.diff(curves.levels) == pytest.approx(step)
    assert all(level % step == 0 for level in curves.levels)
    lowest, highest = (harmonic(edges[0], edges[1]) for edges in zip(axes.get_xlim(), axes.get_ylim(), strict=True))
    assert 0 <= min(curves.levels) - lowest < step
    assert 0 < highest - max(curves.levels) <= step
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    meets = min(harmonic(right, bottom), harmonic(left, top))  # curves below end at the other two edges
    ends = [level for level in curves.levels if meets < level < harmonic(right, top)]
    assert [text.get_text().strip() for text in levels(axes)] == [f"H {level:.0f}" for level in ends]


def test_one_side_alone_and_no_new_classes(tmp_path: Path, canvases: list[Canvas]) -> None:
    write(tmp_path, result())
    write(tmp_path, result("tcp+sar", base=70.0))
    (figure,) = draw(tmp_path)
    assert ">CoOp<" in figure.svg
    assert ">TCP<" in figure.svg
    (axes,) = canvases[0].axes
    assert {place: shape for place, (_, shape) in markers(axes).items()} == {
        (60.0, 58.0): "X",
        (80.0, 60.0): "o",
        (70.0, 60.0): "^",
    }
    assert {text.get_text() for text in names(axes)} == {"CoOp", "TCP"}
    write(tmp_path, result(dataset="mine", new=None, zero_shot=(50.0, None)))
    assert len(draw(tmp_path)) == 3
    assert canvases[-1].axes[0].texts[:] == []


@pytest.mark.parametrize("spread", [1.0, 0.5, 4.0], ids=["near", "nearer", "far"])
def test_names_stand_by_their_points_and_not_on_one_another(
    tmp_path: Path, canvases: list[Canvas], spread: float
) -> None:
    ends = {}
    for number, method in enumerate(METHODS):
        base, new = 80.0 + spread * (number % 5), 55.0 + spread * (number // 5)
        ends[method] = (base, new), (base + 0.2, new + 0.2 * spread)
        move(tmp_path, method, *ends[method])
    draw(tmp_path)
    canvases[0].draw_without_rendering()
    (axes,) = canvases[0].axes
    boxes = {text.get_text(): text.get_window_extent() for text in names(axes)}
    assert len(boxes) == len(METHODS)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes.values(), 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes.values())
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes.values())
    points = [axes.transData.transform(point) for pair in ends.values() for point in pair]
    for box, (x, y) in itertools.product(boxes.values(), points):
        assert not (box.x0 < x < box.x1 and box.y0 < y < box.y1)
    for method, (_, end) in ends.items():
        box, (x, y) = boxes[method_name(method)], axes.transData.transform(end)
        apart = np.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))
        assert apart < 0.2 * max(frame.width, frame.height)
    assert {to_hex(text.get_color()) for text in names(axes)} == {INK}


def test_a_thread_leads_from_a_name_to_its_point(tmp_path: Path, canvases: list[Canvas]) -> None:
    move(tmp_path, "coop", (70.0, 50.0), (70.0, 54.0))
    move(tmp_path, "kgcoop", (80.0, 62.0), (80.0, 64.0))
    draw(tmp_path)
    canvases[0].draw_without_rendering()
    (axes,) = canvases[0].axes
    boxes = {text.get_text(): text.get_window_extent().padded(3) for text in names(axes)}
    for name, end in (("CoOp", (70.0, 54.0)), ("KgCoOp", (80.0, 64.0))):
        ends = [np.transpose(line.get_data()) for line in threads(axes)]
        (start,) = [first for first, last in ends if last == pytest.approx(end)]
        assert boxes[name].contains(*axes.transData.transform(start))


def test_methods_with_names_alike_have_points_and_names_of_their_own(tmp_path: Path, canvases: list[Canvas]) -> None:
    move(tmp_path, "dept", (70.0, 50.0), (70.0, 54.0))
    move(tmp_path, "dept:coop", (80.0, 62.0), (80.0, 64.0))
    draw(tmp_path)
    assert sorted(text.get_text() for text in names(canvases[0].axes[0])) == ["DePT", "DePT on CoOp"]
