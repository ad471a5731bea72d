"""``statistics.safetensors``: what is written is read to the bit, and what is unsound is refused in one line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.banks import unit_rows
from support.bundles import BANK_NAMES, ENCODER_DIGEST, name_rows, reseal, write_bundle
from support.pictures import jpeg
from support.tensor_bytes import read, write
from support.trained import example_statistics, photos

from sar_infer import BundleError, Classifier, DecisionOptions, InputError, SchemaError, open_bundle
from sar_infer.bank import add, remove, rename
from sar_infer.bundle.freeze import freeze
from sar_infer.bundle.manifest import CARD, STATISTICS
from sar_infer.classifiers.confidence import Confidence
from sar_infer.classifiers.trained_statistics import ClassPhotos, TrainedStatistics
from sar_infer.cli.classify import main

TRAINED = example_statistics()
PHOTO = jpeg(colour=(30, 160, 90))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", trained=TRAINED)


def test_statistics_are_read_as_they_were_written(path: Path) -> None:
    loaded = open_bundle(path).statistics
    assert loaded is not None
    assert (loaded.names, loaded.encoder_digest) == (TRAINED.names, ENCODER_DIGEST)
    before, after = TRAINED.statistics.tensors(), loaded.statistics.tensors()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype and np.array_equal(after[name], tensor)


def damaged(change: Callable[[dict[str, str], dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        metadata, tensors = read(path / STATISTICS)
        change(metadata, tensors)
        write(path / STATISTICS, metadata, tensors)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged(lambda _, tensors: tensors["means"].fill(np.nan)), "means is not finite"),
        (damaged(lambda _, tensors: np.negative(tensors["precision"], out=tensors["precision"])), "positive definite"),
        (damaged(lambda _, tensors: tensors["counts"].fill(-1)), "number of photos"),
        (damaged(lambda _, tensors: tensors.pop("curve")), "expected tensors"),
        (damaged(lambda _, tensors: tensors.update(alpha=np.array([0.1]))), "single numbers"),
        (damaged(lambda _, tensors: tensors.update(photo_offsets=np.zeros((2, 3)))), "offsets"),
        (damaged(lambda _, tensors: tensors.update(means=tensors["means"][:2])), "means"),
        (damaged(lambda _, tensors: tensors.update(centre=tensors["centre"][:4])), "float32"),
        (damaged(lambda metadata, _: metadata.update(encoder_digest="f" * 64)), "another encoder"),
        (damaged(lambda metadata, _: metadata.update(format="sar-head")), "sar-head"),
        (lambda path: example_statistics(BANK_NAMES[:3], dim=4).save(path / STATISTICS), "rows of 4"),
        (lambda path: example_statistics(("red", "owl")).save(path / STATISTICS), "owl"),
        (lambda path: example_statistics(("red", "RED")).save(path / STATISTICS), "RED"),
    ],
)
def test_unsound_statistics_are_refused(path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(path)
    reseal(path)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(path)
    assert STATISTICS in str(caught.value) and "\n" not in str(caught.value)


def test_another_version_says_so(path: Path) -> None:
    damaged(lambda metadata, _: metadata.update(version="9"))(path)
    reseal(path)
    with pytest.raises(SchemaError, match="version '9', expected 1"):
        open_bundle(path)


def test_freezing_keeps_the_photos_of_the_classes_that_are_left(path: Path, tmp_path: Path) -> None:
    bundle = open_bundle(path)
    bank = add(rename(remove(bundle.bank, ["green"]), "blue", "navy"), ["teal"], name_rows(["teal"]))
    manifest = freeze(bundle, bank, tmp_path / "new", command="tests")
    assert STATISTICS in manifest.files
    assert "rank trained and added classes together" in (tmp_path / "new" / CARD).read_text("utf-8")
    loaded = open_bundle(tmp_path / "new")
    assert loaded.statistics is not None and set(loaded.statistics.names) == {"red", "navy"}
    before = Classifier(bundle).classify(PHOTO, ["teal"], top_k=9)[0].predictions
    after = Classifier(loaded).classify(PHOTO, top_k=9)[0].predictions
    expected_logits = {{"blue": "navy"}.get(p.label, p.label): p.logit for p in before if p.label != "green"}
    assert {p.label: p.logit for p in after} == pytest.approx(expected_logits, abs=1e-4)


FITTED = {"temperature": 2.0, "thresholds": {"score": 0.5}, "conformal": {"0.9": 0.1}, "calibrated": BANK_NAMES}


@pytest.mark.parametrize("branch", ["text", "statistics"])
def test_calibration_holds_for_the_branch_that_it_names(tmp_path: Path, branch: str) -> None:
    path = write_bundle(tmp_path / "b", trained=TRAINED, calibrated_for=branch, **FITTED)
    classifier, holds = Classifier.open(path), branch == "statistics"
    result = classifier.classify(PHOTO, top_k=9)[0]
    assert [p.calibration == "held-out" for p in result.predictions] == [holds] * 4
    logits = np.array([p.logit for p in result.predictions]) / (2 if holds else 1)
    assert [p.score for p in result.predictions] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), rel=1e-4)
    for options in ({"unknown": "score"}, {"coverage": 0.9}):
        if holds:
            classifier.classify(PHOTO, **options)
        else:
            with pytest.raises(InputError):
                classifier.classify(PHOTO, **options)


TRUST = Confidence(2.5, score=0.3, energy=4.0, others=3.0, conformal=((0, (0.3, 0.2, 0.1)), (3, (0.5, 0.4, 0.3))))
TRUSTED = dataclasses.replace(TRAINED, statistics=dataclasses.replace(TRAINED.statistics, confidence=TRUST))


def test_classes_left_out_calibrate_added_classes_too_and_held_out_photos_their_own(tmp_path: Path) -> None:
    held = Classifier.open(write_bundle(tmp_path / "held", trained=TRUSTED, **FITTED))
    left = Classifier.open(write_bundle(tmp_path / "left", trained=TRUSTED))
    text = Classifier.open(write_bundle(tmp_path / "text", trained=TRAINED))
    ways = [(held, None, "held-out", 2.0), (held, ["owl"], "left-out", 2.5), (left, None, "left-out", 2.5)]
    for classifier, classes, way, temperature in [*ways, (text, ["owl"], "none", 1.0)]:
        (result,) = classifier.classify(PHOTO, classes, top_k=9)
        assert {p.calibration for p in result.predictions} == {way}
        logits = np.array([p.logit for p in result.predictions]) / temperature
        expected = np.exp(logits - logits.max())
        assert [p.score for p in result.predictions] == pytest.approx(expected / expected.sum(), rel=1e-4)
    (result,) = held.classify(PHOTO, ["owl"], top_k=9, coverage=0.9, unknown="energy")
    counts = [{"red": 3, "green": 4, "blue": 5}.get(p.label, 0) for p in result.predictions]
    assert TRAINED.statistics.counts.tolist() == [3, 4, 5]
    least = TRUST.least(0.9, counts)
    assert least is not None
    needed = zip(result.predictions, least, strict=True)
    assert set(result.label_set or ()) == {p.label for p, score in needed if p.score >= score}
    energy = -2.5 * np.log(np.exp(np.array([p.logit for p in result.predictions]) / 2.5).sum())
    assert result.unknown == (energy > 4.0)
    moved = Classifier.open(tmp_path / "left", offset=3.0)
    assert {p.calibration for p in moved.classify(PHOTO, top_k=9)[0].predictions} == {"none"}


def test_text_alone_has_its_own_confidence(tmp_path: Path) -> None:
    plain = example_statistics(alpha=0.0, offsets=((0, 0.0),), text_confidence=TRUST)
    classifier = Classifier.open(write_bundle(tmp_path / "b", trained=plain))
    (result,) = classifier.classify(PHOTO, top_k=9)
    assert (result.branch, {p.calibration for p in result.predictions}) == ("text", {"left-out"})
    (result,) = classifier.stream([PHOTO], classifier.class_set(photos={"green": photos()}), top_k=9)
    assert (result.branch, {p.calibration for p in result.predictions}) == ("text+statistics", {"none"})


def test_confidence_is_kept_and_files_without_it_open(tmp_path: Path) -> None:
    for item in (TRAINED, TRUSTED):
        item.save(tmp_path / STATISTICS)
        assert TrainedStatistics.load(tmp_path / STATISTICS).statistics.confidence == item.statistics.confidence
    bundle = open_bundle(write_bundle(tmp_path / "b", trained=TRUSTED))
    freeze(bundle, bundle.bank, tmp_path / "new", command="tests")
    frozen = open_bundle(tmp_path / "new")
    assert frozen.statistics is not None and frozen.statistics.statistics.confidence == TRUST
    assert "**statistics**" in (tmp_path / "new" / CARD).read_text("utf-8")


def test_photos_of_one_class_end_the_calibration_of_that_class(tmp_path: Path) -> None:
    classifier = Classifier.open(write_bundle(tmp_path / "b", trained=TRAINED, **FITTED))
    (result,) = classifier.stream([PHOTO], classifier.class_set(photos={"green": photos()}), top_k=9)
    assert {p.label for p in result.predictions if p.calibration == "held-out"} == {*BANK_NAMES} - {"green"}
    with pytest.raises(InputError):
        classifier.decide(classifier.class_set(photos={"green": photos()}), options=DecisionOptions(coverage=0.9))


def test_another_offset_has_no_calibration(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", trained=TRAINED, **FITTED)
    plain, moved = Classifier.open(path), Classifier.open(path, offset=3.0)
    before, after = (
        {p.label: p for p in classifier.classify(PHOTO, top_k=9)[0].predictions} for classifier in (plain, moved)
    )
    assert not any(p.calibration == "held-out" for p in after.values())
    for name in BANK_NAMES:
        moved_by = 3.0 if name in TRAINED.names else 0.0
        assert after[name].logit == pytest.approx(before[name].logit - moved_by, abs=1e-4)
    with pytest.raises(InputError):
        moved.classify(PHOTO, unknown="score")


def test_an_offset_needs_statistics(tmp_path: Path, bundle_path: Path) -> None:
    with pytest.raises(InputError):
        Classifier.open(bundle_path, offset=1.0)
    with pytest.raises(InputError):
        Classifier.open(write_bundle(tmp_path / "b", trained=TRAINED), offset=float("inf"))
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    call = [str(tmp_path / "photo.jpg"), "--offset", "1", "--bundle"]
    refused = CliRunner().invoke(main, [*call, str(bundle_path)])
    assert refused.exit_code == 2 and not refused.stdout
    assert "neither this bundle nor its bank has class statistics" in refused.stderr
    done = CliRunner().invoke(main, [*call, str(tmp_path / "b"), "--format", "json", "--top-k", "9"])
    loaded = {p["label"]: p["logit"] for p in json.loads(done.stdout)[0]["predictions"]}
    expected = Classifier.open(tmp_path / "b", offset=1.0).classify(PHOTO, top_k=9)[0].predictions
    assert loaded == pytest.approx({p.label: p.logit for p in expected})


def test_names_are_as_many_as_means_and_a_class_has_a_photo_unless_its_name_means_nothing() -> None:
    with pytest.raises(BundleError):
        TrainedStatistics(("red",), TRAINED.statistics, ENCODER_DIGEST)
    mean = unit_rows(["a"])[0]
    assert ClassPhotos(mean, 1).count == 1
    assert ClassPhotos(mean, 0, photos_only=True).count == 0
    with pytest.raises(InputError, match="got 0"):
        ClassPhotos(mean, 0)
