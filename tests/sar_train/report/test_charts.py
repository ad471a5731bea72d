"""Accuracy against shots, and learning curves, read from the artists of the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from support.results import result, write

from sar_train.report import charts
from sar_train.report.figure import MUTED, WITH, WITHOUT, Figure
from sar_train.report.results import read
from sar_train.report.wording import method_name

FEW: dict[str, Any] = {"protocol": "few-shot", "new": None, "zero_shot": (54.0, None)}


def drawn(folder: Path, section: str, canvases: list[Canvas] | None = None) -> list[Figure]:
    """Return the figures of a section, and leave only theirs in ``canvases``, which follow the same order."""
    figures = charts.figures(read(folder))
    if canvases is not None:
        canvases[:] = [canvas for figure, canvas in zip(figures, canvases, strict=True) if figure.section == section]
    return [figure for figure in figures if figure.section == section]


def curves(axes: Axes) -> dict[str, list[list[tuple[float, float]]]]:
    """Return the points of each line by its colour."""
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for line in axes.lines:
        points = [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
        found.setdefault(to_hex(line.get_color()), []).append(points)
    return found


def legend(canvas: Canvas) -> list[str]:
    return [text.get_text() for text in canvas.legends[0].get_texts()]


def losses(*values: float, **others: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "learning_rate": 0.1, "cross_entropy": v} | others for epoch, v in enumerate(values, 1)]


def test_accuracy_against_shots(tmp_path: Path) -> None:
    for name in ("coop", "coop+sar", "kgcoop"):
        for shots in (1, 2, 16):
            write(tmp_path, result(name, shots=shots, base=50.0 + shots, **FEW))
    (figure,) = drawn(tmp_path, "few-shot")
    for text in ("CoOp", "KgCoOp", "zero-shot", "with SAR", "16"):
        assert f">{text}<" in figure.svg
    assert figure.section == "few-shot"
    assert not figure.folded


def test_lines_are_means_and_bands_their_deviations(tmp_path: Path, canvases: list[Canvas]) -> None:
    for seed, shift in ((1, -2.0), (2, 2.0)):
        for shots in (0, 1, 4):
            write(tmp_path, result(shots=shots, seed=seed, base=60.0 + shots + shift, **FEW))
    for shots in (1, 4):
        write(tmp_path, result("coop+sar", shots=shots, base=70.0 + shots, **FEW))
    drawn(tmp_path, "few-shot", canvases)
    (canvas,) = canvases
    (axes,) = canvas.axes
    lines = curves(axes)
    assert lines[WITHOUT] == [[(0, 61.0), (1, 64.0), (2, 60.0)]]
    assert lines[WITH] == [[(0, 71.0), (1, 74.0)]]
    assert [y for _, y in lines[MUTED][0]] == [54.0, 54.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "all"]
    assert list(axes.get_xticks()) == [0, 1, 2]
    bands = [found for found in axes.collections if isinstance(found, PolyCollection)]
    low, high = bands[0].get_paths()[0].vertices[:, 1].min(), bands[0].get_paths()[0].vertices[:, 1].max()
    assert (low, high) == pytest.approx((60.0 - 8**0.5, 64.0 + 8**0.5))
    assert to_hex(bands[0].get_facecolor()[0]) == WITHOUT
    assert legend(canvas) == ["without SAR", "with SAR", "zero-shot"]
    assert [line.get_marker() for line in canvas.legends[0].legend_handles] == ["o", "^", "None"]  # type: ignore[union-attr]


def test_one_ranking_is_a_curve_for_each_seed_and_a_mark_without_offset(tmp_path: Path, canvases: list[Canvas]) -> None:
    for seed, base in ((1, 70.0), (2, 72.0)):
        write(tmp_path, result(seed=seed, open_=(base, 20.0)))
    write(tmp_path, result("coop+sar", open_=(60.0, 50.0)))
    write(tmp_path, result("tcp"))  # made before there were such measures
    write(tmp_path, result("dept", open_=(90.0, 80.0)))
    (figure,) = drawn(tmp_path, "open", canvases)
    assert (figure.section, figure.beside, figure.folded) == ("open", figure.key, False)
    axes, other = canvases[0].axes
    assert [one.get_title(loc="left") for one in (axes, other)] == ["CoOp", "DePT"]
    for low, high, largest in ((*axes.get_xlim(), 95), (*axes.get_ylim(), 85)):
        assert low == 0
        assert largest < high < 110
    assert curves(axes) == {
        MUTED: [[(55, 0), (50, 40), (0, 45)], [(50, 40)]],
        WITHOUT: [[(75, 0), (70, 20), (0, 25)], [(70, 20)], [(77, 0), (72, 20), (0, 25)], [(72, 20)]],
        WITH: [[(65, 0), (60, 50), (0, 55)], [(60, 50)]],
    }
    assert legend(canvases[0]) == ["without SAR", "with SAR", "zero-shot"]


def test_one_number_of_shots_is_no_curve(tmp_path: Path) -> None:
    write(tmp_path, result(shots=1, **FEW))
    assert drawn(tmp_path, "few-shot") == []


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (3, 3), (6, 4)])
def test_panels_are_in_rows_of_four(tmp_path: Path, canvases: list[Canvas], count: int, columns: int) -> None:
    methods = ("coop", "cocoop", "kgcoop", "maple", "promptsrc", "tcp")[:count]
    for method in methods:
        for shots in (1, 2):
            write(tmp_path, result(method, shots=shots, **FEW))
    drawn(tmp_path, "few-shot", canvases)
    shown = [axes for axes in canvases[0].axes if axes.axison]
    assert sorted(axes.get_title(loc="left") for axes in shown) == sorted(map(method_name, methods))
    spec = shown[0].get_subplotspec()
    assert spec is not None
    assert spec.get_gridspec().get_geometry() == (-(-count // columns), columns)
    for place, axes in enumerate(shown):
        below = place >= count - columns
        assert (axes.get_ylabel() == "accuracy, %") is (place % columns == 0)
        assert (axes.get_xlabel() == "shots") is below
        assert any(label.get_visible() for label in axes.get_xticklabels()) is below
        box = axes.get_window_extent().transformed(canvases[0].dpi_scale_trans.inverted())
        assert box.width > 1.8
        assert 1.5 < box.height < 2.5
    assert len(canvases[0].axes) - len(shown) == -count % columns


def test_loss_terms_are_averaged_over_seeds_epoch_by_epoch(tmp_path: Path, canvases: list[Canvas]) -> None:
    for seed, loss in ((1, 1.0), (2, 3.0)):
        write(tmp_path, result(seed=seed, history=losses(loss, 2 * loss, regulariser=0.0)))
    drawn(tmp_path, "curves", canvases)
    (axes,) = canvases[0].axes
    assert curves(axes) == {WITHOUT: [[(1, 2.0), (2, 4.0)]]}  # zero has no logarithm
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss, log scale")
    assert "regulariser" in legend(canvases[0])


def test_numbers_that_are_none_and_terms_of_one_epoch_are_left_out(tmp_path: Path, canvases: list[Canvas]) -> None:
    history = [*losses(1.0, float("nan"), 3.0), {"epoch": 4, "learning_rate": 0.1, "distillation": 2.0}]
    write(tmp_path, result(history=history))
    drawn(tmp_path, "curves", canvases)
    assert curves(canvases[0].axes[0]) == {WITHOUT: [[(1, 1.0), (3, 3.0)]]}
    assert legend(canvases[0]) == ["without SAR", "with SAR", "cross-entropy"]


def test_learning_curves_name_their_terms(tmp_path: Path, canvases: list[Canvas]) -> None:
    write(tmp_path, result())
    write(tmp_path, result("coop+sar", history=losses(1.0, 2.0, regulariser=0.1)))
    (figure,) = drawn(tmp_path, "curves", canvases)
    for text in ("cross-entropy", "regulariser", "epoch"):
        assert f">{text}<" in figure.svg
    with_sar = [line for line in canvases[0].axes[0].lines if to_hex(line.get_color()) == WITH]
    assert [line.get_linestyle() for line in with_sar] == ["-", "--"]
    shown = canvases[0].legends[0].get_lines()
    assert [line.get_linestyle() for line in shown] == ["-", "-", "-", "--"]
    for line, entry in zip(with_sar, shown[2:], strict=True):
        assert line.get_linewidth() == entry.get_linewidth()


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
def test_ticks_of_losses_are_plain_numbers(
    tmp_path: Path, canvases: list[Canvas], low: float, high: float, ticks: list[float]
) -> None:
    write(tmp_path, result(history=losses(high, low)))
    drawn(tmp_path, "curves", canvases)
    axes = canvases[0].axes[0]
    bottom, top = axes.get_ylim()
    assert [float(tick) for tick in axes.get_yticks() if bottom <= tick <= top] == pytest.approx(ticks)
    assert [axes.yaxis.get_major_formatter()(tick, 0) for tick in ticks] == [f"{tick:g}" for tick in ticks]
    assert len(axes.get_yticks(minor=True)) == 0


def test_later_curves_are_folded_and_few_shot_runs_show_the_most_shots(tmp_path: Path) -> None:
    write(tmp_path, result())
    write(tmp_path, result(dataset="dtd"))
    for shots in (1, 16):
        write(tmp_path, result(shots=shots, **FEW))
    found = drawn(tmp_path, "curves")
    assert [figure.folded for figure in found] == [False, True, True]
    assert found[2].key == "curves-few-shot-caltech101-16shots-sar-mini"
    assert {figure.section for figure in found} == {"curves"}


def test_without_a_history_there_is_no_curve(tmp_path: Path) -> None:
    write(tmp_path, result(history=[{"epoch": 1, "cross_entropy": 1.0}]))
    write(tmp_path, result("kgcoop", history=[]))
    assert drawn(tmp_path, "curves") == []


def test_few_shot_curves_are_of_the_most_shots_of_each_dataset(tmp_path: Path) -> None:
    for dataset, shots in (("dtd", 16), ("eurosat", 4), ("eurosat", 1), ("ucf101", 16), ("ucf101", 0)):
        write(tmp_path, result(dataset=dataset, shots=shots, **FEW))
    titles = [figure.title for figure in drawn(tmp_path, "curves")]
    assert [title.removeprefix("Learning curves on ") for title in titles] == [
        "dtd, 16 shots, sar-mini, few-shot",
        "eurosat, 4 shots, sar-mini, few-shot",
        "ucf101, all photos, sar-mini, few-shot",
    ]
