"""Heat maps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from PIL import Image
from scipy.stats import spearmanr
from support.results import blocks, result, similarity, write

from sar_train.report import heatmap
from sar_train.report.figure import WITH, WITHOUT, Figure
from sar_train.report.results import read


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_names_of_a_group_are_neighbours(sizes: list[int], random: object) -> None:
    cosines = blocks(sizes)
    shuffled = list(range(sum(sizes)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    order = heatmap.clustered(cosines[np.ix_(shuffled, shuffled)])
    assert sorted(order) == list(range(len(order)))
    kinds = np.repeat(np.arange(len(sizes)), sizes)[[shuffled[place] for place in order]]
    assert int((np.diff(kinds) != 0).sum()) == len(sizes) - 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_names_keep_their_order(count: int) -> None:
    assert heatmap.clustered(np.eye(count)) == list(range(count))


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(0)
    first, second = (np.corrcoef(random.normal(size=(8, 20))) for _ in range(2))
    upper = np.triu_indices(8, 1)
    expected = float(spearmanr(first[upper], second[upper]).statistic)
    assert heatmap.rank_correlation(first, second) == pytest.approx(expected)
    assert heatmap.rank_correlation(first, first**3) == pytest.approx(1.0)
    assert np.isnan(heatmap.rank_correlation(first, np.eye(8)))


def three(folder: Path, *, base: int = 6, count: int = 12) -> None:
    names = [f"name {i}" for i in range(count)]
    hand = blocks([count // 3] * 3)
    random = np.random.default_rng(1)
    noise = random.normal(size=(count, count))
    for name, scale in (("coop", 0.3), ("coop+sar", 0.05)):
        learned = np.clip(hand + scale * (noise + noise.T), -1, 1)
        write(folder, result(name, similarities=similarity(names, base, hand, learned)))


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    """Return the figure of two methods on twelve names."""
    folder = tmp_path_factory.mktemp("three")
    three(folder)
    (found,) = heatmap.figures(read(folder))
    return found


def test_the_figure_shows_three_maps_that_differ(figure: Figure) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB")).astype(int)
    height, width = pixels.shape[0], pixels.shape[1]
    upper = pixels[int(0.15 * height) : int(0.4 * height)]
    panels = [upper[:, int(left * width) : int((left + 0.15) * width)] for left in (0.12, 0.40, 0.68)]
    size = min(panel.shape[1] for panel in panels)
    changed = [np.abs(panels[0][:, :size] - panel[:, :size]).mean() for panel in panels[1:]]
    assert min(changed) > 3
    assert all(len(np.unique(panel.reshape(-1, 3), axis=0)) > 2 for panel in panels)


def test_titles_say_how_well_relations_were_kept(figure: Figure) -> None:
    without, with_sar = (float(part.partition(" = ")[2][:4]) for part in figure.svg.split("ρ")[1:3])
    assert without < with_sar <= 1
    assert f"CoOp {without:.2f}, CoOp + SAR {with_sar:.2f}" in figure.alt
    assert figure.beside == "pairs-" + figure.key.removeprefix("similarity-")


def panels(canvas: Canvas) -> dict[str, Axes]:
    """Return the panels by their titles, without the number."""
    return {axes.get_title(loc="left").partition(",")[0]: axes for axes in canvas.axes if axes.get_title(loc="left")}


def shown(axes: Axes) -> np.ndarray:
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def pair_of_matrices(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write three groups of names, whose order is theirs already, and what two methods make of them."""
    hand = blocks([3, 2, 4])
    learned = []
    for place, name in enumerate(("coop", "coop+sar")):
        changed = hand.copy()
        for i, j, change in ((0, 8, 0.6 - 0.4 * place), (1, 2, -0.8), (4, 6, 0.2)):
            changed[i, j] = changed[j, i] = hand[i, j] + change
        learned.append(changed)
        write(folder, result(name, similarities=similarity([f"n{i}" for i in range(9)], 5, hand, changed)))
    return hand, learned[0], learned[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, drawing: Any) -> tuple[tuple[np.ndarray, ...], Canvas]:
    """Return the matrices of hand-crafted prompt, method and method with SAR, and the figure drawn of them."""
    folder = tmp_path_factory.mktemp("pair")
    matrices = pair_of_matrices(folder)
    with drawing() as canvases:
        heatmap.figures(read(folder))
    return matrices, canvases[0]


def test_maps_show_the_cosines_in_one_order_and_one_scale(pair: tuple[tuple[np.ndarray, ...], Canvas]) -> None:
    (hand, without, with_sar), canvas = pair
    found = panels(canvas)
    assert set(found) == {
        "hand-crafted",
        "CoOp",
        "CoOp + SAR",
        "CoOp: change",
        "CoOp + SAR: change",
        "Every pair of names",
    }
    order = heatmap.clustered(hand)
    names = [label.get_text() for label in found["hand-crafted"].get_yticklabels()]
    assert names == [f"n{i}" for i in order]
    for title, matrix in (("hand-crafted", hand), ("CoOp", without), ("CoOp + SAR", with_sar)):
        expected = matrix[np.ix_(order, order)].copy()
        np.fill_diagonal(expected, np.nan)
        np.testing.assert_allclose(shown(found[title]), expected, atol=1e-9)
        assert found[title].images[0].get_cmap().name == "viridis"
    off = ~np.eye(9, dtype=bool)
    every = np.concatenate([matrix[off] for matrix in (hand, without, with_sar)])
    scale = tuple(np.quantile(every, [0.005, 0.998]))
    for title in ("hand-crafted", "CoOp", "CoOp + SAR"):
        assert found[title].images[0].get_clim() == pytest.approx(scale)


def test_below_are_changes_around_zero_and_every_pair(pair: tuple[tuple[np.ndarray, ...], Canvas]) -> None:
    (hand, without, with_sar), canvas = pair
    found = panels(canvas)
    order = heatmap.clustered(hand)
    off = ~np.eye(9, dtype=bool)
    reach = max(np.quantile(np.abs((matrix - hand)[off]), 0.995) for matrix in (without, with_sar))
    for title, matrix in (("CoOp: change", without), ("CoOp + SAR: change", with_sar)):
        expected = (matrix - hand)[np.ix_(order, order)]
        np.testing.assert_allclose(shown(found[title])[off], expected[off], atol=1e-9)
        assert found[title].images[0].get_clim() == pytest.approx((-reach, reach))
        assert found[title].images[0].get_cmap().name == "PuOr_r"
    upper = np.triu_indices(9, 1)
    points = found["Every pair of names"]
    first, second, diagonal = points.lines
    for line, matrix, colour, marker in ((first, without, WITHOUT, "o"), (second, with_sar, WITH, "^")):
        np.testing.assert_allclose(line.get_xdata(), hand[upper])
        np.testing.assert_allclose(line.get_ydata(), matrix[upper])
        assert (to_hex(line.get_color()), line.get_marker()) == (colour, marker)
    np.testing.assert_array_equal(*diagonal.get_data())
    assert (points.get_xlabel(), points.get_ylabel()) == ("hand-crafted cosine", "learned cosine")
    assert tuple(diagonal.get_xdata()) == points.get_xlim()
    bars = {axes.get_ylabel() for axes in canvas.axes}
    assert {"cosine", "change of cosine"} <= bars


def test_one_side_alone_keeps_its_colour(tmp_path: Path, canvases: list[Canvas]) -> None:
    hand = blocks([3, 3])
    write(tmp_path, result("coop+sar", similarities=similarity([f"n{i}" for i in range(6)], 3, hand, hand)))
    heatmap.figures(read(tmp_path))
    found = panels(canvases[0])
    assert to_hex(found["Every pair of names"].lines[0].get_color()) == WITH
    assert found["CoOp + SAR: change"].images[0].get_clim() == (-0.01, 0.01)  # nothing changed


def test_strips_mark_base_and_new_classes(pair: tuple[tuple[np.ndarray, ...], Canvas]) -> None:
    (hand, *_), canvas = pair
    new = [float(place >= 5) for place in heatmap.clustered(hand)]
    for title in ("hand-crafted", "CoOp", "CoOp + SAR", "CoOp: change", "CoOp + SAR: change"):
        strips = panels(canvas)[title].child_axes
        assert len(strips) == 2
        for strip in strips:
            image = strip.images[0]
            assert image.get_array().ravel().tolist() == new
            assert [to_hex(image.to_rgba(value)) for value in (0.0, 1.0)] == [heatmap.BASE, heatmap.NEW]
    (legend,) = [axes.get_legend() for axes in canvas.axes if axes.get_title(loc="left") == "hand-crafted"]
    assert legend is not None
    frame, box = panels(canvas)["hand-crafted"].get_window_extent(), legend.get_window_extent()
    assert box.x1 == pytest.approx(frame.x1, abs=8)  # above the right end of the panel
    assert box.y0 >= frame.y1
    assert {
        text.get_text(): to_hex(patch.get_facecolor())
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    } == {"base": heatmap.BASE, "new": heatmap.NEW}


def test_the_first_method_of_every_scene_comes_first(tmp_path: Path) -> None:
    names, hand = ["a", "b", "c"], blocks([2, 1])
    for dataset in ("caltech101", "dtd"):
        for method in ("coop", "kgcoop"):
            write(tmp_path, result(method, dataset=dataset, similarities=similarity(names, 2, hand, hand)))
    found = heatmap.figures(read(tmp_path))
    assert [(figure.key.split("-")[4], figure.folded) for figure in found] == [
        ("caltech101", False), ("dtd", False), ("caltech101", True), ("dtd", True),
    ]  # fmt: skip


def test_a_hundred_names_are_named_as_far_as_there_is_room(tmp_path: Path) -> None:
    three(tmp_path, base=49, count=99)
    (found,) = heatmap.figures(read(tmp_path))
    assert 15 <= found.svg.count(">name ") <= heatmap.MOST_LABELS
    assert ">base<" in found.svg


def test_without_new_classes_nothing_is_said_of_them(tmp_path: Path) -> None:
    three(tmp_path, base=12)
    (found,) = heatmap.figures(read(tmp_path))
    assert ">base<" not in found.svg
    assert "strips" not in found.caption
