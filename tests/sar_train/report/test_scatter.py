"""Base against new."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from support.results import result, write

from sar_train.report import scatter
from sar_train.report.results import read
from sar_train.report.style import RC


def test_one_figure_a_dataset_and_their_average_first(tmp_path: Path) -> None:
    for dataset in ("caltech101", "dtd"):
        write(tmp_path, result(dataset=dataset, new=50.0))
        write(tmp_path, result("coop+sar", dataset=dataset, new=55.0))
    found = scatter.figures(read(tmp_path))
    assert [figure.title.partition(": ")[2].partition(",")[0] for figure in found] == [
        "average of 2 datasets",
        "caltech101",
        "dtd",
    ]
    assert [figure.folded for figure in found] == [False, True, True]
    assert found[0].alt == "Base against new accuracy of CoOp. SAR raised new accuracy for CoOp."


def test_one_side_alone_and_no_new_classes(tmp_path: Path) -> None:
    write(tmp_path, result())
    write(tmp_path, result("tcp+sar"))
    (figure,) = scatter.figures(read(tmp_path))
    assert ">CoOp<" in figure.svg
    assert ">TCP<" in figure.svg
    write(tmp_path, result(dataset="mine", new=None, zero_shot=(50.0, None)))
    assert len(scatter.figures(read(tmp_path))) == 3


def test_names_do_not_lie_on_one_another(tmp_path: Path) -> None:
    moves = {name: ((80.0 + i / 3, 55.0 + i / 4), (80.2 + i / 3, 54.0 + i / 2)) for i, name in enumerate(
        ("coop", "cocoop", "prograd", "kgcoop", "maple", "promptsrc", "tcp", "dept", "dept:kgcoop")
    )}  # fmt: skip
    with mpl.rc_context(RC):
        canvas = Canvas(figsize=(8.4, 6.0), layout="constrained")
        FigureCanvasAgg(canvas)
        scatter._paint(canvas, (60.0, 58.0), moves)
        canvas.draw_without_rendering()
        names = [
            text for text in canvas.axes[0].texts if text.get_text() and not text.get_text().strip().startswith("H ")
        ]
        boxes = [text.get_window_extent() for text in names]
    assert len(boxes) == 9
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))
