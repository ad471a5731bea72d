"""``sar-bank fit``: statistics of a bank's own photos, from the command line, the server and a call."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from sar_infer.classifiers.confidence import Confidence
from sar_infer.classifiers.statistics import Statistics
from support.bank_commands import BANK, COLOURS, Command, paint_folders, working_in

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as sar_classify
from sar_infer.errors import InputError

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


def statistics() -> tuple[Statistics, Confidence]:
    """Return those of the bank."""
    result = Statistics.from_tensors(ClassBank.load(BANK).fitted or {})
    assert result.confidence is not None
    return result, result.confidence


def calibrations(*arguments: object) -> set[str]:
    """Return what the scores of all answers were calibrated on."""
    return {
        p["calibration"]
        for image in classify.answers("held/red", "held/iris", *arguments)
        for p in image["predictions"]
    }


def test_it_fits_ranks_and_is_taken_back(photographed: Path) -> None:
    before = classify.answers("held/red", "--bank", BANK)
    stdout = run("fit", BANK).stdout
    assert "fitted the class model on 32 photos of 4 classes" in stdout
    assert "undo: sar-bank rollback mine.safetensors --to 1" in stdout
    assert "classes that you add: by name" in stdout and "95 % intervals" in stdout
    fitted, confidence = statistics()
    expected = Classifier.open(os.environ["SAR_BUNDLE"], "cpu", bank=BANK).fit_model().statistics
    for name, array in expected.tensors().items():
        np.testing.assert_array_equal(fitted.tensors()[name], array)
    predictions = classify.answers("held/red", "--bank", BANK)[0]["predictions"]
    assert {p["calibration"] for p in predictions} == {"left-out"}
    assert {p["calibration"] for p in before[0]["predictions"]} == {"none"}
    logits = np.array([p["logit"] for p in predictions])
    powers = np.exp((logits - logits.max()) / confidence.temperature)
    np.testing.assert_allclose([p["score"] for p in predictions], powers / powers.sum(), atol=1e-5)
    assert powers.sum() / powers.max() * predictions[0]["score"] == pytest.approx(1, abs=1e-4)
    run("rollback", BANK, "--to", 1)
    assert classify.answers("held/red", "--bank", BANK) == before


def test_the_report_for_programs(photographed: Path) -> None:
    content = run.report("fit", BANK)
    fitted = content["fit"]
    assert (content["changed"], content["undo_to"]) == (True, 1)
    assert (fitted["classes"], fitted["photos"], fitted["pooled_classes"]) == ([*COLOURS], 32, 0)
    assert fitted["alpha"] > 0 and fitted["temperature"] >= 1 and fitted["seconds"] >= 0
    assert [item["photos"] for item in fitted["expected"]] == [0, 1, 2, 4]
    for item in fitted["expected"]:
        assert 0 <= item["low"] <= item["accuracy"] <= item["high"] <= 100


def test_sets_and_unknown_need_no_held_out_photo(photographed: Path) -> None:
    classify("held/red", "--bank", BANK, "--coverage", "0.9", code=2)
    classify("held/red", "--bank", BANK, "--unknown", code=2)
    assert "  not calibrated: " in classify("held/red", "--bank", BANK, "--explain").stdout
    run("fit", BANK)
    assert "  calibrated on classes left out in turn" in classify("held/red", "--bank", BANK, "--explain").stdout
    names, (_, confidence) = ClassBank.load(BANK).names, statistics()
    needed = confidence.least(0.9, [8 if name in COLOURS else 0 for name in names])
    assert needed is not None
    for image in classify.answers("held", "--bank", BANK, "--coverage", "0.9", "--unknown", "--top-k", 9):
        scores = {p["label"]: p["score"] for p in image["predictions"]}
        assert set(image["label_set"]) == {n for n, least in zip(names, needed, strict=True) if scores[n] >= least}
        assert image["unknown"] == (max(scores.values()) < confidence.thresholds(len(names))["score"])
    line = classify("held/red", "--bank", BANK, "--coverage", "0.7", code=2).stderr
    assert "coverage 0.7: this was calibrated for 0.8, 0.9, 0.95" in line
    run("set", BANK, "grey thing", "--background")
    line = classify("held/red", "--bank", BANK, "--coverage", "0.9", code=2).stderr
    assert "a class is background" in line


def test_held_out_photos_count_for_more_until_the_bank_changes(photographed: Path) -> None:
    run("fit", BANK)
    run("calibrate", BANK, "--photos", paint_folders("more", 20, seed=5))
    (image,) = classify.answers("held/red/0.png", "--bank", BANK, "--top-k", 9)
    assert {p["calibration"] for p in image["predictions"] if p["label"] in COLOURS} == {"held-out"}
    run("add", BANK, "lime")
    assert calibrations("--bank", BANK) == {"left-out"}


def test_adding_photos_says_when_it_would_pay_until_it_is_done(here: Path) -> None:
    paint_folders("labelled", 4, seed=1)
    for name in ("red", "green", "blue"):
        assert HINT not in run("add", BANK, name, "--photos", f"labelled/{name}").stderr
    few = "statistics need 4 classes with 2 photos or more whose rows are kept, got 3; add photos"
    assert few in run.refused("fit", BANK)
    hint = run("add", BANK, "iris", "--photos", "labelled/iris").stderr
    assert f"{HINT}: sar-bank fit mine.safetensors" in hint
    run("fit", BANK)
    assert HINT not in run("add", BANK, "--photos", paint_folders("new", 2, seed=8)).stderr


def test_examples_of_four_classes_are_fitted_in_the_call(photographed: Path) -> None:
    assert calibrations("--examples", "labelled", "--only") == {"left-out"}
    classifier = Classifier.open(os.environ["SAR_BUNDLE"], "cpu")
    folders = sorted(Path("labelled").iterdir())
    photos = {path.name: classifier.embed_photos(sorted(path.iterdir())) for path in folders}
    fitting = classifier.fit_model(photos, only=True)
    assert fitting.classes == tuple(sorted(COLOURS))
    assert fitting.statistics.confidence is not None and fitting.statistics.confidence.others == 3
    few = paint_folders("few", 4, seed=1, names=("red", "green", "blue"))
    assert calibrations("--examples", few, "--only") == {"none"}
    with pytest.raises(InputError, match="4 classes"):
        classifier.fit_model(dict(list(photos.items())[:3]), only=True)
