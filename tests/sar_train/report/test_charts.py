"""Accuracy against shots, and learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.results import result, write

from sar_train.report import charts
from sar_train.report.results import read

FEW: dict[str, Any] = {"protocol": "few-shot", "new": None, "zero_shot": (54.0, None)}


def test_accuracy_against_shots(tmp_path: Path) -> None:
    for name in ("coop", "coop+sar", "kgcoop"):
        for shots in (1, 2, 16):
            write(tmp_path, result(name, shots=shots, base=50.0 + shots, **FEW))
    (figure,) = charts.accuracy_by_shots(read(tmp_path))
    for text in ("CoOp", "KgCoOp", "zero-shot", "with SAR", "16"):
        assert f">{text}<" in figure.svg
    assert figure.section == "few-shot"


def test_one_number_of_shots_is_no_curve(tmp_path: Path) -> None:
    write(tmp_path, result(shots=1, **FEW))
    assert charts.accuracy_by_shots(read(tmp_path)) == []


def test_loss_terms_are_averaged_over_seeds_epoch_by_epoch(tmp_path: Path) -> None:
    for seed, loss in ((1, 1.0), (2, 3.0)):
        history = [{"epoch": e, "learning_rate": 0.1, "cross_entropy": loss * e, "regulariser": 0.0} for e in (1, 2)]
        write(tmp_path, result(seed=seed, history=history))
    terms = charts._terms(list(read(tmp_path).runs))
    assert terms == {"cross_entropy": [(1, 2.0), (2, 4.0)], "regulariser": [(1, 0.0), (2, 0.0)]}


def test_learning_curves_name_their_terms(tmp_path: Path) -> None:
    write(tmp_path, result())
    history = [{"epoch": e, "cross_entropy": 1.0, "regulariser": 0.1 * e} for e in (1, 2)]
    write(tmp_path, result("coop+sar", history=history))
    (figure,) = charts.learning_curves(read(tmp_path))
    for text in ("cross-entropy", "regulariser", "epoch"):
        assert f">{text}<" in figure.svg


def test_without_a_history_there_is_no_curve(tmp_path: Path) -> None:
    write(tmp_path, result(history=[{"epoch": 1, "cross_entropy": 1.0}]))
    write(tmp_path, result("kgcoop", history=[]))
    assert charts.learning_curves(read(tmp_path)) == []
