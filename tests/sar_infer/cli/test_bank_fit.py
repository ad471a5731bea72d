"""``sar-bank fit`` and ``calibrate``: a class model of a bank's own, from the command line."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bank_commands import BANK, COLOURS, Command, content, paint_folders, working_in

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.class_model.model import ClassModel
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as sar_classify

run, classify = Command(main), Command(sar_classify)
HINT = "enough photos to fit a class model"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Path:
    """A folder with a bank that has eight photos of four classes, those photos, and others."""
    with working_in(tmp_path_factory.mktemp("prepared"), bundle_path) as folder:
        run("add", BANK, "--photos", paint_folders("labelled", 8, seed=1))
        paint_folders("held", 6, seed=2)
    return folder


@pytest.fixture
def photographed(prepared: Path, here: Path) -> Path:
    return shutil.copytree(prepared, here, dirs_exist_ok=True)


def test_it_fits_ranks_and_is_taken_back(photographed: Path) -> None:
    before = classify.answers("held/red", "--bank", BANK)
    stdout = run("fit", BANK).stdout
    assert "fitted the class model on 32 photos of 4 classes" in stdout
    assert "undo: sar-bank rollback mine.safetensors --to 1" in stdout
    assert "other photos of these classes: about " in stdout and "% by 4 photos right among " in stdout
    expected = Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=BANK).fit_model().fitted.model
    for name, array in expected.tensors().items():
        np.testing.assert_array_equal(ClassBank.load(BANK).fitted[name], array)
    assert classify.answers("held/red", "--bank", BANK) != before
    back = run("rollback", BANK, "--to", 1)
    assert back.stderr == "without a fitted class model; next: sar-bank fit mine.safetensors\n"
    assert classify.answers("held/red", "--bank", BANK) == before
    run("fit", BANK)
    assert run("rollback", BANK, "--to", 0).stderr == "without a fitted class model\n"  # nor photos to fit it to


def test_the_report_for_programs(photographed: Path) -> None:
    report = run.report("fit", BANK)
    fitted = report["fit"]
    assert (report["changed"], report["undo_to"]) == (True, 1)
    assert (fitted["classes"], fitted["photos"], fitted["pooled_classes"], fitted["not_measured"]) == (4, 32, 0, None)
    assert fitted["rivals"] == len(ClassBank.load(BANK).names) - 1
    assert [item["photos"] for item in fitted["expected"]] == [0, 1, 2, 4]
    for item in fitted["expected"]:
        assert 0 <= item["added_classes"] <= 1 and 0 <= item["fitted_classes"] <= 1


def test_sets_and_unknown_need_no_held_out_photo(photographed: Path) -> None:
    classify("held/red", "--bank", BANK, "--coverage", "0.9", code=2)
    classify("held/red", "--bank", BANK, "--unknown", code=2)
    run("fit", BANK)
    bank = ClassBank.load(BANK)
    model = ClassModel.from_tensors(bank.fitted)
    needed = model.least(0.9, [8 if name in COLOURS else 0 for name in bank.names])
    for image in classify.answers("held", "--bank", BANK, "--coverage", "0.9", "--top-k", 9):
        scores = {p["label"]: p["score"] for p in image["predictions"]}
        assert set(image["label_set"]) == {n for n, least in zip(bank.names, needed, strict=True) if scores[n] >= least}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
    limits = dict(zip(bank.names, model.unknown_threshold([8 if n in COLOURS else 0 for n in bank.names]), strict=True))
    best = [image["predictions"][0]["label"] for image in classify.answers("held", "--bank", BANK)]
    for image, label in zip(classify.answers("held", "--bank", BANK, "--unknown"), best, strict=True):
        assert (image["predictions"] == []) == (image["unknown"] > limits[label]) == ("reason" in image)
    assert "expected one of 0.8, 0.9, 0.95" in classify("held", "--bank", BANK, "--coverage", "0.7", code=2).stderr
    run("set", BANK, "grey thing", "--background")
    assert "do not support background classes" in classify("held", "--bank", BANK, "--coverage", "0.9", code=2).stderr


@pytest.mark.parametrize("fitted", [True, False])
def test_a_calibration_counts_until_the_bank_changes(photographed: Path, fitted: bool) -> None:
    if fitted:
        run("fit", BANK)
    (before,) = classify.answers("held/red/0.png", "--bank", BANK)
    report = run.report("calibrate", BANK, "--photos", paint_folders("more", 20, seed=5))
    calibration = ClassBank.load(BANK).calibration
    assert report["measured"]["photos"] == 80 and report["temperature"] == calibration.temperature
    (image,) = classify.answers("held/red/0.png", "--bank", BANK, "--coverage", "0.9", "--top-k", 9)
    assert image["predictions"][0]["logit"] != before["predictions"][0]["logit"]
    enough = [p["label"] for p in image["predictions"] if p["score"] >= calibration.least[1]]
    assert image["label_set"] == enough
    classify("held/red", "--bank", BANK, "--unknown")
    added = run("add", BANK, "lime").stderr
    assert "calibrate again: sar-bank calibrate" in added
    run("remove", BANK, "lime")
    run("rollback", BANK, "--steps", 2)
    assert classify.answers("held/red/0.png", "--bank", BANK, "--coverage", "0.9", "--top-k", 9) == [image]
    run("rollback", BANK, "--steps", 1)
    assert classify.answers("held/red/0.png", "--bank", BANK) == [before]


def test_the_threshold_of_unknown_is_the_call_s_the_bank_s_the_calibration_s_or_the_model_s(photographed: Path) -> None:
    def rejected(*options: object) -> list[bool]:
        return [image["predictions"] == [] for image in classify.answers("held", "--bank", BANK, "--unknown", *options)]

    run("set", BANK, "--unknown-threshold", 0)
    assert all(rejected())
    assert not any(rejected("--threshold", 1))
    run("fit", BANK)
    run("add", BANK, "lime")
    assert all(rejected())  # both keep it
    run("set", BANK, "--no-unknown-threshold")
    thresholds = ClassModel.from_tensors(ClassBank.load(BANK).fitted).unknown[:, 1]
    few, own, many = (
        sum(rejected(*options)) for options in (("--threshold", max(thresholds)), (), ("--threshold", min(thresholds)))
    )
    assert few <= own <= many
    run("set", BANK, "--unknown-threshold", 0)
    said = run("calibrate", BANK, "--photos", paint_folders("more", 20, seed=5)).stdout
    assert "dropped the threshold of unknown that was set, 0" in said
    calibrated = ClassBank.load(BANK).calibration.unknown
    assert rejected() == rejected("--threshold", calibrated)
    run("set", BANK, "--unknown-threshold", 0)
    assert all(rejected())
    evaluated = run.report("evaluate", BANK, "--photos", "held")
    assert evaluated["unknowns"]["threshold"] == 0
    run("rollback", BANK, "--steps", 1)
    assert rejected() == rejected("--threshold", calibrated)
    for arguments in (("red", "--unknown-threshold", 0.5), ("--threshold", 0.5), ("red",)):
        assert "set" in run.refused("set", BANK, *arguments) or "leave it out" in run.refused("set", BANK, *arguments)
    assert "contradict" in run.refused("set", BANK, "--unknown-threshold", 0.5, "--no-unknown-threshold")


def test_a_calibration_prints_what_it_changes_for_other_photos(photographed: Path) -> None:
    run("fit", BANK)
    more = paint_folders("more", 20, seed=5)
    alone = run("calibrate", BANK, "--photos", more)
    assert "Warning: the photos show no other things, so how many of these are found was not measured" in alone.stderr
    assert "other photos found" not in alone.stdout
    run("rollback", BANK, "--steps", 1)
    Path(more, "mud").mkdir()
    for number, level in enumerate(range(0, 250, 10)):
        Image.new("RGB", (32, 32), (level, level, level)).save(Path(more, "mud", f"{number}.png"))
    evaluated = run.report("evaluate", BANK, "--photos", more)["unknowns"]
    result = run("calibrate", BANK, "--photos", more, "--false-alarms", 10)
    assert result.stderr == "no class, so photos of other things: 'mud'\n"
    measured = ClassBank.load(BANK).calibration.measured
    for name, key in (("known", "called_unknown"), ("unknown_images", "others_found")):
        share = evaluated[name]
        assert measured["before"][key] == share["share"]
        assert f"{share['share']:.1%} (95 % interval {100 * share['low']:.1f} to " in result.stdout
    assert measured["false_alarms"] == 0.1 and measured["other_photos"] == 25
    after = run.report("evaluate", BANK, "--photos", more)["unknowns"]
    assert after["known"]["share"] <= 0.1  # of the very photos


def test_a_calibration_needs_photos_that_the_bank_has_not_learned_from(photographed: Path) -> None:
    before = content()
    assert "0 photos that the bank has not used; calibration needs 50" in run.refused(
        "calibrate", BANK, "--photos", "labelled"
    )
    run("set", BANK, "red", "--background")
    assert "'red' is background" in run.refused("calibrate", BANK, "--photos", "held")
    run("rollback", BANK, "--steps", 1)
    assert content()[:3] == before[:3]


def test_adding_photos_says_when_it_would_pay_until_it_is_done(here: Path) -> None:
    paint_folders("labelled", 4, seed=1)
    assert HINT not in run("add", BANK, "red", "--photos", "labelled/red").stderr
    assert "a class model needs 2 classes with photos" in run.refused("fit", BANK)
    for name in ("green", "blue"):
        assert HINT not in run("add", BANK, name, "--photos", f"labelled/{name}").stderr
    hint = run("add", BANK, "iris", "--photos", "labelled/iris").stderr
    assert f"{HINT}: sar-bank fit mine.safetensors" in hint
    run("fit", BANK)
    assert "fit" not in run("add", BANK, "--photos", paint_folders("new", 2, seed=8)).stderr
    why = "the class model was fitted without photos of 'lime'; fit it again"
    shutil.copytree("new/red", "new/one/lime")
    Path("new/one/lime/0.png").unlink()
    assert why not in run("add", BANK, "--photos", "new/one").stderr  # of a single photo
    run("rollback", BANK, "--steps", 1)
    assert f"{why}: sar-bank fit mine.safetensors" in run("add", BANK, "lime", "--photos", "new/red").stderr
    run("rollback", BANK, "--steps", 1)
    classifier = Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=BANK)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        classifier.add("lime", "new/red")
    assert f"{why}: fit()" in [str(one.message) for one in warned]
    run("fit", BANK)
    assert why not in run("add", BANK, "lime", "--photos", "new/blue").stderr


def test_examples_are_fitted_in_the_call(photographed: Path) -> None:
    by_call = classify.answers("held", "--examples", "labelled", "--only", "--coverage", "0.9")
    run("create", "own.safetensors", "--photos", "labelled")
    assert by_call == classify.answers("held", "--bank", "own.safetensors", "--coverage", "0.9")
