"""Accuracies are counted again from single answers of the run time; the calibration error bin by bin."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, example_head, image_graph, name_graph, name_rows
from support.photos import write_folder, write_photo
from support.sound import change, smaller, turned_image_graph, write_sound

from sar_infer.bank import ClassBank, remove, set_class
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.bundle.manifest import BANK, Calibration, Quality, Scores
from sar_infer.bundle_check import verify_bundle
from sar_infer.bundle_check.chance import chance_error
from sar_infer.bundle_check.finding import Check
from sar_infer.bundle_check.photos import find_photos
from sar_infer.classifier import Classifier
from sar_infer.classifiers.head import ClassHead
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
    findings = verify_bundle(bundle, find_photos(photos))
    return {line.what.partition(" photos")[0].rpartition(", ")[0]: line for line in findings if " photos" in line.what}


def answers(bundle: Path, photos: Path, names: Sequence[str]) -> np.ndarray:
    """Return for each photo the score of the best of some names, and whether it is the name of the folder."""
    classifier, rows = Classifier.open(bundle, "cpu"), []
    for name in names:
        for path in sorted((photos / name.replace(" ", "_")).iterdir()):
            (result,) = classifier.classify(path, names, only=True, top_k=1)
            rows.append((result.predictions[0].score, result.predictions[0].label == name))
    return np.array(rows)


def accuracy(bundle: Path, photos: Path, names: Sequence[str]) -> float:
    return 100 * answers(bundle, photos, names)[:, 1].mean()


def calibration_error(bundle: Path, photos: Path) -> float:
    rows, error = answers(bundle, photos, BANK_NAMES), 0.0
    for low in range(15):
        binned = rows[(rows[:, 0] > low / 15) & (rows[:, 0] <= (low + 1) / 15)]
        error += abs((binned[:, 1] - binned[:, 0]).sum())
    return error / len(rows)


@pytest.mark.parametrize("head", [None, example_head()], ids=["text", "head"])
def test_accuracy_where_the_folders_are_the_bank(photos: Path, tmp_path: Path, head: ClassHead | None) -> None:
    bundle = write_sound(tmp_path / "bundle", head=head)
    now = accuracy(bundle, photos, BANK_NAMES)
    assert 0 < now < 100
    cases = ((now, 24, "ok"), (1.0, 24, "ok"), (100.0, 2, "ok"), (100.0, 1000, "moved"), (100.0, None, "noted"))
    for then, count, verdict in cases:
        change(bundle, quality=Quality(metrics=Scores(base_accuracy=then), tables=from_photos(count) if count else {}))
        finding = lines(bundle, photos)["accuracy"]
        assert (finding.then, finding.now, finding.verdict) == (then, pytest.approx(now), verdict)
        assert finding.what == "accuracy, 24 photos of 4 classes of the bank"


def test_some_classes_of_the_bank_by_any_spelling_are_not_held_against_the_bundle(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"Red": 2, "red": 3, "verdant": 4, "green": 1})
    quality = Quality(metrics=Scores(base_accuracy=100.0), tables=from_photos(1000))
    bundle = write_sound(tmp_path / "bundle", quality=quality)
    bank = ClassBank.of(BANK_NAMES, name_rows(BANK_NAMES), ENCODER_DIGEST)
    set_class(bank, "green", aliases=("verdant",)).save(bundle / BANK)
    change(bundle)
    finding = lines(bundle, photos)["accuracy"]
    assert (finding.then, finding.verdict) == (None, "noted")
    assert "10 photos of 2 classes of the bank" in finding.what


def test_new_classes_are_judged_among_themselves(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"dog": 5, "sea_lake": 5, "red": 5})
    bundle = write_sound(tmp_path / "bundle")
    findings = lines(bundle, photos)
    assert findings["accuracy"].what == "accuracy, 10 photos of 2 new classes"
    assert findings["accuracy"].now == pytest.approx(accuracy(bundle, photos, ["dog", "sea lake"]))
    assert len(findings) == 2
    alone = "not measured, 5 photos of 'red', the only class of the bank among the folders"
    assert findings["not measured"] == Check(alone, None, None, "noted")
    for name in ("green", "blue", "grey_thing"):
        write_photo(photos / name / "0.png")
    change(bundle, quality=Quality(metrics=Scores(50.0, 100.0, 66.7)))
    new = [line for line in verify_bundle(bundle, find_photos(photos)) if line.what.endswith("new classes")]
    assert [(line.then, line.now, line.verdict) for line in new] == [(100.0, findings["accuracy"].now, "noted")]


def test_calibration_error(photos: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"temperature": 3.0, "calibrated": BANK_NAMES}
    bundle = write_sound(tmp_path / "bundle", quality=Quality(calibration=CALIBRATION), **fields)
    now = calibration_error(bundle, photos)
    assert now > 0.02
    for then, verdict in ((now - 1, "moved"), (now - 0.01, "ok")):
        figures = dataclasses.replace(CALIBRATION, error_after=then, measured_on=10**9)
        change(bundle, quality=Quality(calibration=figures), **fields)
        finding = lines(bundle, photos)["calibration error"]
        assert (finding.now, finding.verdict) == (pytest.approx(now, abs=1e-6), verdict)
    assert finding.bound == f"at most {now - 0.01 + 0.02 + chance_error(10**9, 24):.6g}"


@pytest.mark.parametrize(("graph", "verdict"), [(image_graph, "ok"), (turned_image_graph, "moved")])
def test_a_smaller_encoder_is_compared_on_all_photos(
    photos: Path, tmp_path: Path, graph: Callable[[], ModelProto], verdict: str
) -> None:
    write_photo(photos / "loose.png", 99)
    bundle = write_sound(tmp_path / "bundle", files={"image_encoder.int8.onnx": graph()}, precisions=smaller("image"))
    verdicts = {line.what: line.verdict for line in verify_bundle(bundle, find_photos(photos))}
    assert verdicts["int8 image encoder, 25 photos, mean cosine"] == verdict
    assert verdicts["int8 image encoder, 25 photos, same class"] == verdict
    assert "accuracy, 24 photos of 4 classes of the bank" in verdicts


def test_a_bundle_whose_bank_is_empty(photos: Path, tmp_path: Path) -> None:
    files = {"image_encoder.int8.onnx": image_graph(), "name_encoder.int8.onnx": name_graph()}
    bundle = write_sound(tmp_path / "bundle", files=files, precisions=smaller("image", "name"))
    ClassBank.of((), np.empty((0, DIM), dtype=np.float32), ENCODER_DIGEST).save(bundle / BANK)
    change(bundle)
    verdicts = {line.what: line.verdict for line in verify_bundle(bundle, find_photos(photos))}
    assert verdicts["0 bank rows made again, difference"] == "ok"
    assert verdicts["int8 image encoder, 24 photos, mean cosine"] == "ok"
    assert verdicts["accuracy, 24 photos of 4 new classes"] == "noted"


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
    freeze(old, set_class(old.bank, "red", threshold=0.1), same)
    freeze(old, remove(old.bank, ["red"]), fewer)
    findings = lines(same, photos)
    assert [findings[figure].verdict for figure in ("accuracy", "calibration error")] == ["moved", "moved"]
    shutil.rmtree(photos / "red")
    findings = lines(fewer, photos)
    assert (findings["accuracy"].then, findings["accuracy"].verdict) == (None, "noted")
    assert "calibration error" not in findings
