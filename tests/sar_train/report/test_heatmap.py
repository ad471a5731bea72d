"""Heat maps."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr
from support.results import blocks, result, similarity, write

from sar_train.report import heatmap
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


def test_the_figure_shows_three_maps_that_differ(tmp_path: Path) -> None:
    three(tmp_path)
    (found,) = heatmap.figures(read(tmp_path))
    pixels = np.asarray(Image.open(io.BytesIO(found.png)).convert("RGB")).astype(int)
    height, width = pixels.shape[0], pixels.shape[1]
    upper = pixels[int(0.15 * height) : int(0.4 * height)]
    panels = [upper[:, int(left * width) : int((left + 0.15) * width)] for left in (0.12, 0.40, 0.68)]
    size = min(panel.shape[1] for panel in panels)
    changed = [np.abs(panels[0][:, :size] - panel[:, :size]).mean() for panel in panels[1:]]
    assert min(changed) > 3
    assert all(len(np.unique(panel.reshape(-1, 3), axis=0)) > 2 for panel in panels)


def test_titles_say_how_well_relations_were_kept(tmp_path: Path) -> None:
    three(tmp_path)
    (found,) = heatmap.figures(read(tmp_path))
    without, with_sar = (float(part.partition(" = ")[2][:4]) for part in found.svg.split("ρ")[1:3])
    assert without < with_sar <= 1
    assert f"CoOp {without:.2f}, CoOp + SAR {with_sar:.2f}" in found.alt
    assert found.beside == "pairs-" + found.key.removeprefix("similarity-")


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


def test_later_methods_are_folded_away(tmp_path: Path) -> None:
    names, hand = ["a", "b", "c"], blocks([2, 1])
    for method in ("coop", "kgcoop"):
        write(tmp_path, result(method, similarities=similarity(names, 2, hand, hand)))
    assert [figure.folded for figure in heatmap.figures(read(tmp_path))] == [False, True]
