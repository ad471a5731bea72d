"""Figures, read from the artists on their canvas: numbers where they belong, and nothing that covers anything else."""

from __future__ import annotations

import html
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Annotation, Text
from PIL import Image
from scipy.stats import spearmanr
from support.results import blocks, result, similarity, tables, write

from sar_train.report import charts, heatmap
from sar_train.report.figure import GRID, INK, MUTED, WITH, WITHOUT, Figure
from sar_train.report.results import read
from sar_train.report.wording import method_name

METHODS = ("coop", "cocoop", "prograd", "kgcoop", "maple", "promptsrc", "tcp", "dept", "dept:kgcoop")
FEW: dict[str, Any] = {"protocol": "few-shot", "new": None, "zero_shot": (54.0, None), "history": None}


def figures(folder: Path, section: str) -> list[Figure]:
    """Return the figures of a section of the report."""
    makers = (charts.base_against_new, charts.curves, heatmap.figures)
    return [figure for maker in makers for figure in maker(read(folder)) if figure.section == section]


def canvas(folder: Path, section: str) -> Canvas:
    """Return the first figure of a section, laid out."""
    drawn = figures(folder, section)[0].canvas()
    drawn.draw_without_rendering()
    return drawn


def panels(drawn: Canvas) -> dict[str, Axes]:
    """Return the panels by their titles, without the number."""
    return {axes.get_title(loc="left").partition(",")[0]: axes for axes in drawn.axes if axes.get_title(loc="left")}


def lines(axes: Axes) -> dict[str, list[list[tuple[float, float]]]]:
    """Return the points of each line by its colour."""
    by_colour: dict[str, list[list[tuple[float, float]]]] = {}
    for line in axes.lines:
        points = [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
        by_colour.setdefault(to_hex(line.get_color()), []).append(points)
    return by_colour


def legend(drawn: Canvas) -> dict[str, tuple[str, object, str]]:
    """Return colour, mark and stroke by name."""
    return {
        str(line.get_label()): (to_hex(line.get_color()), line.get_marker(), line.get_linestyle())
        for line in drawn.legends[0].get_lines()
    }


def move(folder: Path, method: str, without: tuple[float, float], with_sar: tuple[float, float]) -> None:
    for name, (base, new) in ((method, without), (f"{method}+sar", with_sar)):
        write(folder, result(name, base=base, new=new))


# -------------------------------------------------------------------------------------------------- base against new
def marks(axes: Axes) -> dict[tuple[float, float], tuple[str, object]]:
    """Return colour and shape of every point."""
    marked = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    return {
        (float(x), float(y)): (to_hex(line.get_color()), line.get_marker())
        for line in marked
        for x, y in zip(*line.get_data(), strict=True)
    }


def names(axes: Axes) -> dict[str, Text]:
    """Return the names of methods, without those of curves; arrows are annotations without a text."""
    return {t.get_text(): t for t in axes.texts if t.get_text() and not t.get_text().strip().startswith("H ")}


def harmonic(base: float, new: float) -> float:
    return 0.0 if base + new == 0 else 2 * base * new / (base + new)


def test_points_arrows_and_zero_shot_lie_where_the_accuracies_are(tmp_path: Path) -> None:
    move(tmp_path, "coop", (80.0, 40.0), (90.0, 50.0))
    drawn = canvas(tmp_path, "base-to-new")
    (axes,) = drawn.axes
    assert marks(axes) == {(60.0, 58.0): (INK, "X"), (80.0, 40.0): (WITHOUT, "o"), (90.0, 50.0): (WITH, "^")}
    (arrow,) = [text for text in axes.texts if isinstance(text, Annotation) and not text.get_text()]
    assert (arrow.xyann, arrow.xy) == ((80.0, 40.0), (90.0, 50.0))
    assert [y for _, y in lines(axes)[MUTED][0]] == [58.0, 58.0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("base accuracy, %", "new accuracy, %")
    assert legend(drawn) == {
        "without SAR": (WITHOUT, "o", "None"), "with SAR": (WITH, "^", "None"), "zero-shot": (INK, "X", "None"),
    }  # fmt: skip


def test_an_average_comes_first_and_shows_no_other_number_than_its_table(tmp_path: Path) -> None:
    for dataset, base in (("dtd", 70.0), ("eurosat", 90.0), ("ucf101", 20.0)):
        for name in ("coop", "kgcoop") if dataset == "ucf101" else ("coop", "coop+sar", "kgcoop"):
            write(tmp_path, result(name, dataset=dataset, base=base, new=50.0))
    average, *others = figures(tmp_path, "base-to-new")
    assert [[cell.text for cell in row[:5]] for row in tables(tmp_path, "base-to-new")[0].rows[1:]] == [
        ["CoOp", "80.0", "50.0", "61.5", "2"],  # over the two datasets that both sides have
        ["KgCoOp", "60.0", "50.0", "54.5", "3"],
    ]
    (axes,) = average.canvas().axes
    assert set(marks(axes)) == {(60.0, 58.0), (60.0, 50.0)}
    assert list(names(axes)) == ["KgCoOp"]
    assert "average of 3 datasets" in average.title
    assert [figure.folded for figure in (average, *others)] == [False, True, True, True]


def test_a_description_names_the_methods_and_those_that_rose(tmp_path: Path) -> None:
    move(tmp_path, "coop", (80.0, 50.0), (80.0, 55.0))
    move(tmp_path, "tcp", (80.0, 50.0), (85.0, 50.0))
    (figure,) = figures(tmp_path, "base-to-new")
    assert figure.alt == "Base against new accuracy of CoOp and TCP. SAR raised new accuracy for CoOp."
    assert (figure.key, figure.folded) == ("base-new-caltech101-16shots-sar-mini", False)


def test_one_side_alone_and_no_new_classes(tmp_path: Path) -> None:
    write(tmp_path, result())
    write(tmp_path, result("tcp+sar", base=70.0))
    write(tmp_path, result(dataset="mine", new=None, zero_shot=(50.0, None)))
    _, first, second = (figure.canvas().axes[0] for figure in figures(tmp_path, "base-to-new"))
    assert set(marks(first)) == {(60.0, 58.0), (80.0, 60.0), (70.0, 60.0)}
    assert set(names(first)) == {"CoOp", "TCP"}
    assert not second.texts


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
    without: tuple[float, float],
    with_sar: tuple[float, float],
    base: tuple[float, float],
    new: tuple[float, float],
) -> None:
    move(tmp_path, "coop", without, with_sar)
    (axes,) = figures(tmp_path, "base-to-new")[0].canvas().axes
    assert axes.get_xlim() == pytest.approx(base)
    assert axes.get_ylim() == pytest.approx(new)


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [(59.5, 60.5, 1), (56.5, 63.5, 1), (56.25, 63.75, 2), (45.0, 75.0, 5), (41.0, 79.0, 10), (5.0, 99.0, 20)],
)
def test_a_few_grey_curves_of_equal_harmonic_mean_are_named_where_they_end(
    tmp_path: Path, low: float, high: float, step: int
) -> None:
    write(tmp_path, result(base=high, new=high, zero_shot=(low, low)))
    (axes,) = canvas(tmp_path, "base-to-new").axes
    (curves,) = [collection for collection in axes.collections if isinstance(collection, ContourSet)]
    for level, path in zip(curves.levels, curves.get_paths(), strict=True):
        assert [harmonic(*point) for point in path.vertices] == pytest.approx([level] * len(path.vertices), rel=1e-2)
    assert np.diff(curves.levels) == pytest.approx(step)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert 0 <= min(curves.levels) - harmonic(left, bottom) < step
    assert 0 < harmonic(right, top) - max(curves.levels) <= step
    meets = min(harmonic(right, bottom), harmonic(left, top))  # curves below end at the other two edges
    ends = [level for level in curves.levels if meets < level < harmonic(right, top)]
    named = [text for text in axes.texts if text.get_text().strip().startswith("H ")]
    assert [text.get_text().strip() for text in named] == [f"H {level:.0f}" for level in ends]
    for text, level in zip(named, ends, strict=True):
        assert harmonic(*text.get_position()) == pytest.approx(level)
        assert text.get_position()[0] == pytest.approx(right) or text.get_position()[1] == pytest.approx(top)


@pytest.mark.parametrize("spread", [1.0, 0.5, 4.0], ids=["near", "nearer", "far"])
def test_names_stand_by_their_points_and_not_on_one_another(tmp_path: Path, spread: float) -> None:
    ends = {}
    for number, method in enumerate(METHODS):
        base, new = 80.0 + spread * (number % 5), 55.0 + spread * (number // 5)
        ends[method] = (base, new), (base + 0.2, new + 0.2 * spread)
        move(tmp_path, method, *ends[method])
    (axes,) = canvas(tmp_path, "base-to-new").axes
    boxes = {name: text.get_window_extent() for name, text in names(axes).items()}
    assert len(boxes) == len(METHODS)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes.values(), 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes.values())
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes.values())
    points = [axes.transData.transform(point) for pair in ends.values() for point in pair]
    assert not any(b.x0 < x < b.x1 and b.y0 < y < b.y1 for b, (x, y) in itertools.product(boxes.values(), points))
    threads = [np.transpose(line.get_data()) for line in axes.lines if to_hex(line.get_color()) == GRID]
    for method, (_, end) in ends.items():
        box, (x, y) = boxes[method_name(method)], axes.transData.transform(end)
        apart = np.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))
        assert apart < 0.2 * max(frame.width, frame.height)
        for start in (start for start, last in threads if last == pytest.approx(end)):
            assert box.padded(6).contains(*axes.transData.transform(start))


# ------------------------------------------------------------------------------------------------------------ panels
def test_lines_by_shots_are_means_and_bands_their_deviations(tmp_path: Path) -> None:
    for seed, shift in ((1, -2.0), (2, 2.0)):
        for shots in (0, 1, 4):
            write(tmp_path, result(shots=shots, seed=seed, base=60.0 + shots + shift, **FEW))
    for shots in (1, 4):
        write(tmp_path, result("coop+sar", shots=shots, base=70.0 + shots, **FEW))
    write(tmp_path, result(dataset="dtd", **FEW))  # one number of shots is no curve
    (figure,) = figures(tmp_path, "few-shot")
    drawn = figure.canvas()
    (axes,) = drawn.axes
    assert lines(axes)[WITHOUT] == [[(0, 61.0), (1, 64.0), (2, 60.0)]]
    assert lines(axes)[WITH] == [[(0, 71.0), (1, 74.0)]]
    assert [y for _, y in lines(axes)[MUTED][0]] == [54.0, 54.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "all"]
    band = next(collection for collection in axes.collections if isinstance(collection, PolyCollection))
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((60.0 - 8**0.5, 64.0 + 8**0.5))
    assert to_hex(band.get_facecolor()[0]) == WITHOUT
    assert [mark for _, mark, _ in legend(drawn).values()] == ["o", "^", "None"]


def test_one_ranking_is_a_curve_for_each_seed_and_a_mark_without_offset(tmp_path: Path) -> None:
    for seed, base in ((1, 70.0), (2, 72.0)):
        write(tmp_path, result(seed=seed, open_=(base, 20.0)))
    write(tmp_path, result("coop+sar", open_=(60.0, 50.0)))
    write(tmp_path, result("tcp"))  # made before there were such measures
    write(tmp_path, result("dept", open_=(90.0, 80.0)))
    (figure,) = figures(tmp_path, "open")
    assert (figure.beside, figure.folded) == (figure.key, False)
    drawn = figure.canvas()
    assert list(panels(drawn)) == ["CoOp", "DePT"]
    axes = panels(drawn)["CoOp"]
    assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0, 0)
    assert lines(axes) == {
        MUTED: [[(55, 0), (50, 40), (0, 45)], [(50, 40)]],
        WITHOUT: [[(75, 0), (70, 20), (0, 25)], [(70, 20)], [(77, 0), (72, 20), (0, 25)], [(72, 20)]],
        WITH: [[(65, 0), (60, 50), (0, 55)], [(60, 50)]],
    }
    assert list(legend(drawn)) == ["without SAR", "with SAR", "zero-shot"]


def losses(*values: float, **others: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "learning_rate": 0.1, "cross_entropy": v} | others for epoch, v in enumerate(values, 1)]


def test_loss_terms_are_averaged_over_seeds_epoch_by_epoch(tmp_path: Path) -> None:
    for seed, loss in ((1, 1.0), (2, 3.0)):
        history = losses(loss, float("nan"), 2 * loss, zero=0.0)
        write(tmp_path, result(seed=seed, history=[*history, {"epoch": 4, "learning_rate": 0.1, "distillation": 2.0}]))
    write(tmp_path, result("coop+sar", history=losses(1.0, 2.0, 3.0, regulariser=0.5)))
    write(tmp_path, result("kgcoop", history=[]))
    write(tmp_path, result("tcp", history=losses(1.0)))
    drawn = canvas(tmp_path, "curves")
    (axes,) = drawn.axes
    assert lines(axes) == {
        WITHOUT: [[(1, 2.0), (3, 4.0)]],  # zero has no logarithm
        WITH: [[(1, 1.0), (2, 2.0), (3, 3.0)], [(1, 0.5), (2, 0.5), (3, 0.5)]],
    }
    assert axes.get_yscale() == "log"
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--"]
    strokes = {name: stroke for name, (_, _, stroke) in legend(drawn).items()}
    assert strokes == {
        "without SAR": "-", "with SAR": "-", "cross-entropy": "-", "zero": "--", "regulariser": "--",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1.0, 4.0, [1.0, 2.0]),
        (1.0, 65.6, [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]),
        (1.0, 66.0, [1.0, 10.0]),  # the axis spans more than a hundredfold
        (0.001, 10.0, [0.001, 0.01, 0.1, 1.0, 10.0]),
    ],
    ids=["narrow", "below a hundred", "above a hundred", "wide"],
)
def test_ticks_of_losses_are_plain_numbers(tmp_path: Path, low: float, high: float, ticks: list[float]) -> None:
    write(tmp_path, result(history=losses(high, low)))
    (axes,) = figures(tmp_path, "curves")[0].canvas().axes
    bottom, top = axes.get_ylim()
    assert [float(tick) for tick in axes.get_yticks() if bottom <= tick <= top] == pytest.approx(ticks)
    assert [axes.yaxis.get_major_formatter()(tick, 0) for tick in ticks] == [f"{tick:g}" for tick in ticks]
    assert len(axes.get_yticks(minor=True)) == 0


def test_few_shot_curves_are_of_the_most_shots_and_all_but_the_first_are_folded(tmp_path: Path) -> None:
    write(tmp_path, result())
    for dataset, shots in (("dtd", 16), ("eurosat", 4), ("eurosat", 1), ("ucf101", 16), ("ucf101", 0)):
        write(tmp_path, result(dataset=dataset, shots=shots, **{**FEW, "history": losses(2.0, 1.0)}))
    curves = figures(tmp_path, "curves")
    assert [figure.title.removeprefix("Learning curves on ") for figure in curves] == [
        "caltech101, 16 shots, sar-mini, base-to-new",
        "dtd, 16 shots, sar-mini, few-shot",
        "eurosat, 4 shots, sar-mini, few-shot",
        "ucf101, all photos, sar-mini, few-shot",
    ]
    assert [figure.folded for figure in curves] == [False, True, True, True]


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (3, 3), (6, 4)])
def test_panels_are_in_rows_of_four(tmp_path: Path, count: int, columns: int) -> None:
    for method, shots in itertools.product(METHODS[:count], (1, 2)):
        write(tmp_path, result(method, shots=shots, **FEW))
    drawn = canvas(tmp_path, "few-shot")
    shown = [axes for axes in drawn.axes if axes.axison]
    assert sorted(panels(drawn)) == sorted(map(method_name, METHODS[:count]))
    assert len(drawn.axes) - len(shown) == -count % columns
    for number, axes in enumerate(shown):
        below = number >= count - columns
        assert (axes.get_ylabel() == "accuracy, %") is (number % columns == 0)
        assert (axes.get_xlabel() == "shots") is below
        assert any(label.get_visible() for label in axes.get_xticklabels()) is below
        box = axes.get_window_extent().transformed(drawn.dpi_scale_trans.inverted())
        assert box.width > 1.8
        assert 1.5 < box.height < 2.5


# --------------------------------------------------------------------------------------------------------- heat maps
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_names_of_a_group_are_neighbours(sizes: list[int], random: Any) -> None:
    shuffled = list(range(sum(sizes)))
    random.shuffle(shuffled)
    order = heatmap.clustered(blocks(sizes)[np.ix_(shuffled, shuffled)])
    assert sorted(order) == list(range(len(order)))
    kinds = np.repeat(np.arange(len(sizes)), sizes)[[shuffled[row] for row in order]]
    assert int((np.diff(kinds) != 0).sum()) == len(sizes) - 1


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(0)
    first, second = (np.corrcoef(random.normal(size=(8, 20))) for _ in range(2))
    upper = np.triu_indices(8, 1)
    expected = float(spearmanr(first[upper], second[upper]).statistic)
    assert heatmap.rank_correlation(first, second) == pytest.approx(expected)
    assert np.isnan(heatmap.rank_correlation(first, np.eye(8)))


Matrices = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Matrices, Figure, Canvas]:
    """Return the hand-crafted cosines of three groups of names, those of two methods, and the figure of them."""
    folder = tmp_path_factory.mktemp("maps")
    hand = blocks([3, 2, 4])
    learned = []
    for name, far in (("coop", 0.6), ("coop+sar", 0.2)):
        changed = hand.copy()
        for i, j, change in ((0, 8, far), (1, 2, -0.8), (4, 6, 0.2)):
            changed[i, j] = changed[j, i] = hand[i, j] + change
        learned.append(changed)
        write(folder, result(name, similarities=similarity([f"n{i}" for i in range(9)], 5, hand, changed)))
    (figure,) = figures(folder, "similarity")
    drawn = figure.canvas()
    drawn.draw_without_rendering()
    return (hand, learned[0], learned[1]), figure, drawn


def test_maps_show_cosines_in_one_order_and_scale_and_changes_around_zero(
    maps: tuple[Matrices, Figure, Canvas],
) -> None:
    (hand, without, with_sar), figure, drawn = maps
    order, off = heatmap.clustered(hand), ~np.eye(9, dtype=bool)
    assert [t.get_text() for t in panels(drawn)["hand-crafted"].get_yticklabels()] == [f"n{i}" for i in order]
    every = np.concatenate([matrix[off] for matrix in (hand, without, with_sar)])
    reach = max(np.quantile(np.abs((matrix - hand)[off]), 0.995) for matrix in (without, with_sar))
    cosines, changes = tuple(np.quantile(every, [0.005, 0.998])), (-reach, reach)
    for title, matrix, limits, colours in (
        ("hand-crafted", hand, cosines, "viridis"),
        ("CoOp", without, cosines, "viridis"),
        ("CoOp + SAR", with_sar, cosines, "viridis"),
        ("CoOp: change", without - hand, changes, "PuOr_r"),
        ("CoOp + SAR: change", with_sar - hand, changes, "PuOr_r"),
    ):
        image = panels(drawn)[title].images[0]
        expected = matrix[np.ix_(order, order)]
        np.testing.assert_allclose(np.ma.filled(image.get_array(), np.nan)[off], expected[off], atol=1e-9)
        assert np.isnan(np.ma.filled(image.get_array(), np.nan).diagonal()).all()
        assert image.get_clim() == pytest.approx(limits)
        assert image.get_cmap().name == colours
    assert {"cosine", "change of cosine"} <= {axes.get_ylabel() for axes in drawn.axes}
    titles = [axes.get_title(loc="left") for axes in drawn.axes]
    for name, matrix in (("CoOp", without), ("CoOp + SAR", with_sar)):
        rho = f"{heatmap.rank_correlation(hand.round(3), matrix.round(3)):.2f}"  # results have three digits
        assert f"{name}, ρ = {rho}" in titles
        assert f"{name} {rho}" in figure.alt
    assert figure.beside == "pairs-" + figure.key.removeprefix("similarity-")


def test_every_pair_is_a_point(maps: tuple[Matrices, Figure, Canvas]) -> None:
    (hand, without, with_sar), _, drawn = maps
    axes, upper = panels(drawn)["Every pair of names"], np.triu_indices(9, 1)
    first, second, diagonal = axes.lines
    for line, matrix, style in ((first, without, (WITHOUT, "o")), (second, with_sar, (WITH, "^"))):
        np.testing.assert_allclose(line.get_data(), (hand[upper], matrix[upper]))
        assert (to_hex(line.get_color()), line.get_marker()) == style
    np.testing.assert_array_equal(*diagonal.get_data())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("hand-crafted cosine", "learned cosine")


def test_strips_mark_base_and_new_classes(maps: tuple[Matrices, Figure, Canvas]) -> None:
    (hand, *_), _, drawn = maps
    new = [float(row >= 5) for row in heatmap.clustered(hand)]
    for axes in (axes for axes in panels(drawn).values() if axes.images):
        box = axes.get_window_extent()
        above, left = (edge.get_window_extent() for edge in axes.child_axes)
        assert (above.x0, above.x1, left.y0, left.y1) == pytest.approx((box.x0, box.x1, box.y0, box.y1))
        assert 0 < above.y0 - box.y1 < 0.02 * box.height
        assert 0 < box.x0 - left.x1 < 0.02 * box.width
        for edge in axes.child_axes:
            image = edge.images[0]
            assert image.get_array().ravel().tolist() == new
            assert [to_hex(image.to_rgba(value)) for value in (0.0, 1.0)] == [heatmap.BASE, heatmap.NEW]
    key = panels(drawn)["hand-crafted"].get_legend()
    assert key is not None
    colours = [to_hex(patch.get_facecolor()) for patch in key.get_patches()]
    assert dict(zip([text.get_text() for text in key.get_texts()], colours, strict=True)) == {
        "base": heatmap.BASE, "new": heatmap.NEW,
    }  # fmt: skip


def test_one_side_alone_keeps_its_colour_and_all_trained_classes_have_no_strips(tmp_path: Path) -> None:
    hand, many = blocks([3, 3]), blocks([33] * 3)
    write(tmp_path, result("coop+sar", similarities=similarity([f"n{i}" for i in range(6)], 6, hand, hand)))
    write(tmp_path, result("tcp", similarities=similarity([f"n{i}" for i in range(99)], 50, many, many)))
    write(tmp_path, result(dataset="dtd", similarities=similarity([f"n{i}" for i in range(6)], 6, hand, hand)))
    first, other, second = figures(tmp_path, "similarity")
    assert [figure.folded for figure in (first, other, second)] == [False, False, True]  # one of each dataset first
    axes = panels(first.canvas())
    assert to_hex(axes["Every pair of names"].lines[0].get_color()) == WITH
    assert axes["CoOp + SAR: change"].images[0].get_clim() == (-0.01, 0.01)  # nothing changed
    assert not axes["hand-crafted"].child_axes
    assert "strips" not in first.caption
    labels = panels(second.canvas())["hand-crafted"].get_yticklabels()
    assert 15 <= len(labels) <= heatmap.MOST_LABELS


# ---------------------------------------------------------------------------------------------------------- the look
@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> list[Canvas]:
    """Return a figure of each kind, laid out."""
    folder = tmp_path_factory.mktemp("looks")
    hand, class_names = blocks([3, 3, 3]), [f"name {i}" for i in range(9)]
    for number, method in enumerate(("coop", "kgcoop", "tcp")):
        for sar in (0, 1):
            name, base = method + "+sar" * sar, 80.0 + number
            alike = {"similarities": similarity(class_names, 5, hand, hand * 0.9)} if method == "coop" else {}
            history = losses(2.0, 1.0, 0.7, regulariser=0.5)
            write(folder, result(name, base=base, new=50.0 + 4 * sar, open_=(base - 9, 30), history=history, **alike))
            for shots in (1, 16):
                write(folder, result(name, shots=shots, base=60.0 + shots + 5 * sar, **FEW))
    sections = ("base-to-new", "similarity", "open", "few-shot", "curves")
    return [canvas(folder, section) for section in sections]


def texts(drawn: Canvas) -> Iterator[Text]:
    """Yield titles, labels and names; ticks are matplotlib's own affair."""
    keys = [*drawn.legends, *filter(None, (axes.get_legend() for axes in drawn.axes))]
    every = [text for key in keys for text in key.get_texts()]
    for axes in drawn.axes:
        every += [*axes.texts, axes.xaxis.label, axes.yaxis.label, *axes.get_yticklabels()]
        every += [text for text in axes.get_children() if isinstance(text, Text)]
    return (text for text in dict.fromkeys(every) if text.get_text().strip(" 0123456789."))


def test_no_text_covers_another_one_or_leaves_the_figure(looks: list[Canvas]) -> None:
    for drawn in looks:
        boxes = [(text, text.get_window_extent()) for text in texts(drawn)]
        for text, box in boxes:
            assert 8 <= float(text.get_fontsize()) <= 11
            assert drawn.bbox.x0 - 2 < box.x0 and box.x1 < drawn.bbox.x1 + 2, text
            assert drawn.bbox.y0 - 2 < box.y0 and box.y1 < drawn.bbox.y1 + 2, text
        for (one, first), (other, second) in itertools.combinations(boxes, 2):
            assert not first.padded(-1).overlaps(second.padded(-1)), (one, other)
        frames = [axes.get_window_extent() for axes in drawn.axes if axes.axison]
        assert all(key.get_window_extent().y0 >= max(frame.y1 for frame in frames) for key in drawn.legends)


def test_names_with_many_settings_leave_the_panels_their_size(tmp_path: Path) -> None:
    hand, class_names = blocks([3, 3, 3]), [f"name {i}" for i in range(9)]
    measured: dict[str, Any] = {
        "open_": (70.0, 30.0),
        "history": losses(2.0, 1.0),
        "similarities": similarity(class_names, 5, hand, hand * 0.9),
    }
    for number, (method, views, sar) in enumerate(itertools.product(("coop", "tcp"), (1, 4), ("", "+sar"))):
        settings = {
            "views": views,
            "teacher": f"a photo of {views} {{}}.",
            "prompt": "auto" * views,
            "quick": views > 1,
        }
        run = result(method + sar, base=70.0 + 2 * number, new=50.0 + number % 3, settings=settings, **measured)
        write(tmp_path, run, name=f"{number}.json")
    for section in ("base-to-new", "similarity", "open", "curves"):
        drawn = canvas(tmp_path, section)
        shown = [axes for axes in drawn.axes if axes.axison and axes.get_label() != "<colorbar>"]
        for box in (axes.get_window_extent().transformed(drawn.dpi_scale_trans.inverted()) for axes in shown):
            assert box.width > 1.5 and box.height > 1.2, section
        every = [text for text in texts(drawn) if text.get_visible()]
        assert any("teacher=a photo" in text.get_text().replace("\n", " ") for text in every), section
        for one, other in itertools.combinations(every, 2):
            assert not one.get_window_extent().padded(-1).overlaps(other.get_window_extent().padded(-1)), (one, other)


def test_points_lie_over_arrows_and_these_over_lines_and_curves(looks: list[Canvas]) -> None:
    (axes,) = looks[0].axes
    curves = [collection.get_zorder() for collection in axes.collections if isinstance(collection, ContourSet)]
    dashes = [line.get_zorder() for line in axes.lines if line.get_linestyle() == "--"]
    arrows = [text.get_zorder() for text in axes.texts if isinstance(text, Annotation)]
    points = [line.get_zorder() for line in axes.lines if line.get_marker() != "None"]
    layers = [curves, dashes, arrows, points, [text.get_zorder() for text in names(axes).values() if text.get_text()]]
    assert all(layers)
    assert all(max(below) < min(above) for below, above in itertools.pairwise(layers))


# ------------------------------------------------------------------------------------------------------------- files
def paint(drawn: Canvas) -> None:
    axes = drawn.subplots()
    axes.plot([0, 1, 2], [1, 3, 2], "o", color=WITHOUT)
    axes.imshow(np.eye(3))
    axes.set_title("R&D <b> $5_x^2$ 50% __")


PLANNED = Figure("some-key", "s", "title", "caption", 'alt with "quotes" & <signs>', paint, (3, 2))


def test_a_drawing_is_the_same_every_time_and_asks_for_nothing() -> None:
    svg, png = PLANNED.draw()
    assert PLANNED.draw() == (svg, png)
    assert "R&amp;D &lt;b&gt; $5_x^2$ 50% __" in svg
    assert 'aria-label="alt with &quot;quotes&quot; &amp; &lt;signs&gt;"' in svg
    assert "http" not in svg
    assert not re.search(r"<(metadata|style|script|!DOCTYPE)", svg)
    identifiers = re.findall(r' id="([^"]+)"', svg)
    assert identifiers
    assert all(identifier.startswith("some-key-") for identifier in identifiers)
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) == set(identifiers)
    assert "var(--without)" in svg
    assert "var(--font)" in svg
    assert not {WITHOUT, INK} & set(re.findall(r"#[0-9a-f]{6}", svg.lower()))
    with Image.open(io.BytesIO(png)) as image:
        assert image.width > 300
        assert image.info["dpi"] == pytest.approx((160, 160), abs=0.1)
        assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_text_that_looks_like_markup_stays_as_it_was_written() -> None:
    words = ['a id="x" b', "#0072b2", "url(#p)", 'href="#q"', "font-family: Arial", ' xmlns="z"', "xlink:href=1"]

    def write_words(drawn: Canvas) -> None:
        for number, word in enumerate(words):
            drawn.text(0.1, 0.1 * number, f"<{word}>")

    svg, _ = Figure("k", "s", "t", "c", "a", write_words, (3, 2)).draw()
    assert [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)] == [f"<{w}>" for w in words]
