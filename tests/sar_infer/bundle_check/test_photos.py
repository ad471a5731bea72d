"""Accuracies are counted again from single answers of the run time; the calibration error bin by bin."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, example_head, image_graph, name_graph, name_rows
from support.photos import write_folder, write_photo
from support.sound import change, image_variant, name_variant, turned_image_graph, write_sound

from sar_infer.bank import ClassBank, ClassInfo, amend, remove
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.bundle.manifest import BANK, Calibration, Quality, Scores
from sar_infer.bundle_check import verify_bundle
from sar_infer.bundle_check.chance import chance_error
from sar_infer.bundle_check.finding import Check
from sar_infer.bundle_check.photos import find_photos
from sar_infer.classifier import Classifier
from sar_infer.errors import ImageError, InputError

ALL = dict.fromkeys(("red", "green", "blue", "grey_thing"), 6)
CALIBRATION = Calibration("photos", 100, 100, False, 0.2, 0.0, 1.0, 1.0)


def from_photos(count: int) -> dict[str, Any]:
    return {"photos": {"base": count}}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", ALL)


def lines(bundle: Path, photos: Path) -> dict[str, Check]:
    """Return findings by their words up to the count of photos."""
    found = verify_bundle(bundle, find_photos(photos))
    return {line.what.partition(" photos")[0].rpartition(", ")[0]: line for line in found if " photos" in line.what}


def accuracy(bundle: Path, photos: Path, names: list[str]) -> float:
    """Return the percentage of photos whose folder's name is the single best answer."""
    classifier = Classifier.open(bundle, "cpu")
    right = total = 0
    for name in names:
        for path in sorted((photos / name.replace(" ", "_")).iterdir()):
            (result,) = classifier.classify(path, names, only=True, top_k=1)
            right += result.predictions[0].label == name
            total += 1
    return 100 * right / total


def calibration_error(bundle: Path, photos: Path) -> float:
    classifier, answers = Classifier.open(bundle, "cpu"), []
    for name in BANK_NAMES:
        for path in sorted((photos / name.replace(" ", "_")).iterdir()):
            (result,) = classifier.classify(path, BANK_NAMES, only=True, top_k=1)
            answers.append((result.predictions[0].score, result.predictions[0].label == name))
    error = 0.0
    for low in range(15):
        held = [(score, right) for score, right in answers if low / 15 < score <= (low + 1) / 15]
        if held:
            error += abs(np.mean([right for _, right in held]) - np.mean([score for score, _ in held])) * len(held)
    return error / len(answers)


@pytest.mark.parametrize("head", [False, True])
def test_accuracy_where_the_folders_are_the_bank(photos: Path, tmp_path: Path, head: bool) -> None:
    fields: dict[str, Any] = {"head": example_head()} if head else {}
    bundle = write_sound(tmp_path / "bundle", **fields)
    now = accuracy(bundle, photos, [*BANK_NAMES])
    assert 0 < now < 100
    cases = ((now, 24, "ok"), (1.0, 24, "ok"), (100.0, 2, "ok"), (100.0, 1000, "moved"), (100.0, None, "noted"))
    for then, count, verdict in cases:
        change(bundle, quality=Quality(metrics=Scores(base_accuracy=then), tables=from_photos(count) if count else {}))
        found = lines(bundle, photos)["accuracy"]
        assert (found.then, found.now, found.verdict) == (then, pytest.approx(now), verdict)
        assert found.what == "accuracy, 24 photos of 4 classes of the bank"


def test_some_classes_of_the_bank_are_not_held_against_the_bundle(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"red": 4, "Blue": 4})
    bundle = write_sound(tmp_path / "bundle", quality=Quality(metrics=Scores(base_accuracy=100.0)))
    found = lines(bundle, photos)["accuracy"]
    assert (found.then, found.verdict) == (None, "noted")
    assert "8 photos of 2 classes of the bank" in found.what


def test_new_classes_are_judged_among_themselves(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"dog": 5, "sea_lake": 5, "red": 5})
    bundle = write_sound(tmp_path / "bundle")
    found = lines(bundle, photos)
    assert found["accuracy"].what == "accuracy, 10 photos of 2 new classes"
    assert found["accuracy"].now == pytest.approx(accuracy(bundle, photos, ["dog", "sea lake"]))
    assert len(found) == 2
    alone = "not measured, 5 photos of 'red', the only class of the bank among the folders"
    assert found["not measured"] == Check(alone, None, None, "noted")
    for name in ("green", "blue", "grey_thing"):
        write_photo(photos / name / "0.png")
    change(bundle, quality=Quality(metrics=Scores(50.0, 100.0, 66.7)))
    new = [line for line in verify_bundle(bundle, find_photos(photos)) if line.what.endswith("new classes")]
    assert [(line.then, line.now, line.verdict) for line in new] == [(100.0, found["accuracy"].now, "noted")]


def test_calibration_error(photos: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"temperature": 3.0, "calibrated": BANK_NAMES}
    bundle = write_sound(tmp_path / "bundle", quality=Quality(calibration=CALIBRATION), **fields)
    now = calibration_error(bundle, photos)
    assert now > 0.02
    for then, verdict in ((now - 1, "moved"), (now - 0.01, "ok")):
        figures = dataclasses.replace(CALIBRATION, error_after=then, measured_on=10**9)
        change(bundle, quality=Quality(calibration=figures), **fields)
        found = lines(bundle, photos)["calibration error"]
        assert (found.now, found.verdict) == (pytest.approx(now, abs=1e-6), verdict)
    assert found.bound == f"at most {now - 0.01 + 0.02 + chance_error(10**9, 24):.6g}"


def test_a_smaller_encoder_that_lost_agreement(photos: Path, tmp_path: Path) -> None:
    bundle = write_sound(
        tmp_path / "bundle", files={"image_encoder.int8.onnx": turned_image_graph()}, precisions=image_variant()
    )
    found = [line for line in verify_bundle(bundle, find_photos(photos)) if "24 photos, " in line.what]
    assert [line.what for line in found] == [
        "int8 image encoder, 24 photos, mean cosine",
        "int8 image encoder, 24 photos, same class",
    ]
    assert [line.verdict for line in found] == ["moved", "moved"]


def test_a_smaller_encoder_that_kept_it_also_on_photos_without_a_class(photos: Path, tmp_path: Path) -> None:
    write_photo(photos / "loose.png", 99)
    bundle = write_sound(
        tmp_path / "bundle", files={"image_encoder.int8.onnx": image_graph()}, precisions=image_variant()
    )
    found = {line.what: line.verdict for line in verify_bundle(bundle, find_photos(photos))}
    assert found["int8 image encoder, 25 photos, mean cosine"] == "ok"
    assert found["int8 image encoder, 25 photos, same class"] == "ok"
    assert "accuracy, 24 photos of 4 classes of the bank" in found


def test_folders_by_any_spelling_and_by_alias(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"Red": 2, "red": 3, "verdant": 4, "green": 1})
    bundle = write_sound(tmp_path / "bundle")
    info = {"green": ClassInfo(aliases=("verdant",))}
    ClassBank(BANK_NAMES, name_rows(BANK_NAMES), ENCODER_DIGEST, info=info).save(bundle / BANK)
    change(bundle)
    assert "10 photos of 2 classes of the bank" in lines(bundle, photos)["accuracy"].what


def test_a_bundle_whose_bank_is_empty(photos: Path, tmp_path: Path) -> None:
    files = {"image_encoder.int8.onnx": image_graph(), "name_encoder.int8.onnx": name_graph()}
    both = {"int8": dataclasses.replace(image_variant()["int8"], name=name_variant()["int8"].name)}
    bundle = write_sound(tmp_path / "bundle", files=files, precisions=both)
    ClassBank((), np.empty((0, DIM), dtype=np.float32), ENCODER_DIGEST).save(bundle / BANK)
    change(bundle)
    found = {line.what: line.verdict for line in verify_bundle(bundle, find_photos(photos))}
    assert found["0 bank rows made again, difference"] == "ok"
    assert found["int8 image encoder, 24 photos, mean cosine"] == "ok"
    assert found["accuracy, 24 photos of 4 new classes"] == "noted"


def test_photos_are_counted_as_they_are_done(photos: Path, tmp_path: Path) -> None:
    done: list[int] = []
    verify_bundle(write_sound(tmp_path / "bundle"), find_photos(photos), done.append)
    assert done == [16, 8]


def test_a_photo_that_cannot_be_read_and_a_folder_without(photos: Path, tmp_path: Path) -> None:
    (photos / "red" / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken.jpg"):
        verify_bundle(write_sound(tmp_path / "bundle"), find_photos(photos))
    with pytest.raises(InputError, match="folder"):
        find_photos(photos / "red" / "broken.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="without images"):
        find_photos(tmp_path / "empty")


def test_a_frozen_bundle_of_other_classes_is_not_held_against_old_figures(photos: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"temperature": 3.0, "calibrated": BANK_NAMES}
    worse = dataclasses.replace(CALIBRATION, error_after=-1.0)  # no error is as small
    quality = Quality(metrics=Scores(base_accuracy=100.0), calibration=worse, tables=from_photos(1000))
    old = open_bundle(write_sound(tmp_path / "old", quality=quality, **fields))
    same, fewer = tmp_path / "same", tmp_path / "fewer"
    freeze(old, amend(old.bank, {"red": ClassInfo(threshold=0.1)}), same)
    freeze(old, remove(old.bank, ["red"]), fewer)
    found = lines(same, photos)
    assert [found[what].verdict for what in ("accuracy", "calibration error")] == ["moved", "moved"]
    shutil.rmtree(photos / "red")
    found = lines(fewer, photos)
    assert (found["accuracy"].then, found["accuracy"].verdict) == (None, "noted")
    assert "calibration error" not in found
