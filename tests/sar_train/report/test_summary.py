"""Sentences that are computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.results import result, write

from sar_train.report import summary
from sar_train.report.results import read

Accuracies = tuple[float, float]


def pair(folder: Path, method: str, without: Accuracies, with_sar: Accuracies, **values: Any) -> None:
    for name, (base, new) in ((method, without), (f"{method}+sar", with_sar)):
        after = 0.7 if "+sar" in name else 0.5
        write(folder, result(name, base=base, new=new, relations=(1.0, after), **values))


def thrice(folder: Path, method: str, without: Accuracies, with_sar: Accuracies) -> None:
    for seed, shift in ((1, -20.0), (2, 0.0), (3, 20.0)):
        pair(folder, method, *((base, new + shift) for base, new in (without, with_sar)), seed=seed)


def claims(folder: Path) -> list[str]:
    ((_, lines),) = summary.claims(read(folder))
    return lines


def test_claims_are_counted(tmp_path: Path) -> None:
    thrice(tmp_path, "coop", (85.0, 50.0), (84.0, 59.0))
    thrice(tmp_path, "kgcoop", (64.0, 57.0), (64.2, 57.5))
    thrice(tmp_path, "tcp", (85.0, 59.5), (85.0, 59.0))
    ((head, lines),) = summary.claims(read(tmp_path))
    assert head == "caltech101, 16 shots, sar-mini"
    assert lines == [
        "SAR raised new accuracy for 2 of 3 methods (CoOp +9.0 and KgCoOp +0.5) and lowered it for 1 (TCP −0.5).",
        "Base accuracy was kept or raised for 2 of 3 methods; CoOp paid most, 1.0 points.",
        "Without SAR, 2 of 3 methods ended below zero-shot on new classes (CoOp and KgCoOp).",
        "With SAR, 1 of these reached it (CoOp).",
        "Relations among held-out names stayed nearer to the hand-crafted ones with SAR in 3 of 3 comparisons.",
        "The paper's claim, new classes up for every method with base kept, does not hold here.",
    ]


def test_changes_that_are_shown_as_none_are_neither_gain_nor_loss(tmp_path: Path) -> None:
    thrice(tmp_path, "coop", (85.0, 50.0), (84.96, 50.04))
    thrice(tmp_path, "tcp", (85.0, 57.96), (85.0, 57.92))
    assert claims(tmp_path)[:3] == [
        "SAR raised new accuracy for 0 of 2 methods and lowered it for 0.",
        "Base accuracy was kept or raised for 2 of 2 methods.",
        "Without SAR, 1 of 2 methods ended below zero-shot on new classes (CoOp).",
    ]


def test_relations_and_one_ranking(tmp_path: Path) -> None:
    for name, after, new in (
        ("coop", 0.9, 20.0),
        ("coop+sar", 0.904, 60.0),
        ("tcp", 0.9, 20.0),
        ("tcp+sar", 0.906, 20),
    ):
        write(tmp_path, result(name, base=85.0, new=50.0, relations=(1.0, after), open_=(60.0, new)))
    lines = claims(tmp_path)
    assert any(line.endswith("with SAR in 1 of 2 comparisons.") for line in lines)  # 0.904 is shown as 0.90
    # of 60 and 20 the harmonic mean is 30
    assert (
        "In one ranking over base and new classes, SAR raised the harmonic mean for 1 of 2 methods (CoOp +30.0 and TCP "
        "+0.0)."
    ) in lines


@pytest.mark.parametrize(("new", "verdict"), [(59.0, "holds here."), (58.0, "does not hold here.")])
def test_the_claim_holds_where_no_method_loses_new_classes(tmp_path: Path, new: float, verdict: str) -> None:
    thrice(tmp_path, "coop", (85.0, 50.0), (85.0, 59.0))
    thrice(tmp_path, "tcp", (85.0, 58.5), (85.0, new))
    assert claims(tmp_path)[-1] == f"The paper's claim, new classes up for every method with base kept, {verdict}"


def test_one_seed_of_both_sides_says_little_about_the_claim(tmp_path: Path) -> None:
    pair(tmp_path, "coop", (85.0, 50.0), (85.0, 59.0))
    for seed in (2, 3):
        write(tmp_path, result("coop", seed=seed, base=85.0, new=50.0))
    assert claims(tmp_path)[-1].startswith("With 1 seed, this says little about the paper's claim")


def test_changes_larger_than_the_deviation_over_seeds(tmp_path: Path) -> None:
    for seed in (1, 2):
        pair(tmp_path, "coop", (85.0, 50.0 + seed), (85.0, 54.0 + seed), seed=seed)
        pair(tmp_path, "tcp", (85.0, 50.0 + 9 * seed), (85.0, 54.0 + 9 * seed), seed=seed)
    assert claims(tmp_path)[1].endswith("for 1 (CoOp +4.0).")


def test_several_datasets_are_averaged_over_those_that_both_sides_have(tmp_path: Path) -> None:
    pair(tmp_path, "coop", (85.0, 50.0), (85.0, 52.0))
    pair(tmp_path, "coop", (85.0, 50.0), (85.0, 56.0), dataset="dtd")
    write(tmp_path, result(dataset="eurosat", new=99.0))
    write(tmp_path, result("tcp+sar", shots=1))  # without a pair nothing is claimed
    ((head, lines),) = summary.claims(read(tmp_path))
    assert head.startswith("average of 3 datasets")
    assert "CoOp +4.0" in lines[0]


def test_the_experiments(tmp_path: Path) -> None:
    pair(tmp_path, "coop", (85.0, 50.0), (85.0, 52.0))
    for name in ("coop", "tcp", "kgcoop", "prograd"):
        write(tmp_path, result(name, protocol="few-shot", new=None, shots=1))
    write(tmp_path, result("mine", protocol="custom", settings={"method": "tcp"}))
    write(tmp_path, result("dept:kgcoop+sar"))
    assert summary.what_was_run(read(tmp_path)) == [
        "base-to-new: 3 runs, trained on caltech101, CoOp and DePT on KgCoOp, under sar-mini, 16 shots, seed 1.",
        "few-shot: 4 runs, trained on caltech101, 4 methods, under sar-mini, 1 shot, seed 1.",
        "sweeps: 1 run, trained on caltech101, TCP, under sar-mini, 16 shots, seed 1.",
    ]


def test_warnings(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    write(tmp_path, result(zero_shot_check={"ok": False}), name="a.json", time=200)
    write(tmp_path, result(code={"version": "1", "digest": "old"}), name="b.json", time=100)
    write(tmp_path, result(), name="c.json", time=150)
    write(tmp_path, result("kgcoop", code={"version": "1", "digest": "other"}))
    assert summary.warnings(read(tmp_path)) == [
        "Zero-shot accuracy is below the known one on caltech101: see the set-up checks first.",
        "The runs were made by 2 states of the code.",
        "1 file of older code left out, as newer code has made the same runs: b.json.",
        "Left out as copies of other runs: c.json.",
        "Skipped, as no results: x.json: not a result.",
    ]
