"""First guesses of people who know other libraries, on the shipped bundle: each works, or its error names the call."""

from __future__ import annotations

import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.metrics import classification_report, confusion_matrix
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score

from sar_infer import Classifier, ImageError, InputError

ROOT = Path(__file__).parents[2] / "examples" / "clothes"
TRAIN, TEST = ROOT / "train", ROOT / "test"
NAMES = ["dress", "hat", "trousers"]
PATHS = [str(path) for name in NAMES for path in sorted((TRAIN / name).iterdir())[:8]]
LABELS = [name for name in NAMES for _ in range(8)]
TEST_PATHS = [str(path) for name in NAMES for path in sorted((TEST / name).iterdir())[:4]]
TEST_LABELS = [name for name in NAMES for _ in range(4)]
HAT = TEST_PATHS[4]


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    return Classifier(device="cpu").fit(PATHS, LABELS)


def copy_of(fitted: Classifier) -> Classifier:
    return clone(fitted)


# ------------------------------------------------------------------------------------------------------- scikit-learn
def test_fit_predict_score(fitted: Classifier) -> None:
    answers = fitted.predict(TEST_PATHS)
    assert (answers.dtype.kind, len(answers)) == ("U", 12)
    assert fitted.score(TEST_PATHS, TEST_LABELS) == np.mean(answers == np.array(TEST_LABELS)) >= 0.75
    assert confusion_matrix(TEST_LABELS, answers).sum() == 12
    assert "hat" in classification_report(TEST_LABELS, answers)


def test_probabilities_are_the_scores_of_classify_in_the_order_of_the_classes(fitted: Classifier) -> None:
    assert fitted.classes_.tolist() == sorted(NAMES)
    scores = fitted.predict_proba(TEST_PATHS)
    assert (scores.dtype, scores.shape) == (np.float64, (12, 3))
    for row, result in zip(scores, fitted.classify(TEST_PATHS), strict=True):
        expected = {prediction.label: prediction.score for prediction in result.predictions}
        assert dict(zip(fitted.classes_.tolist(), row, strict=True)) == pytest.approx(expected, abs=1e-5)


def test_a_background_class_has_no_column(fitted: Classifier) -> None:
    from sar_infer.bank import set_class

    other = Classifier(fitted.bundle, bank=set_class(fitted.bank, "hat", background=True), device="cpu")
    assert other.classes_.tolist() == ["dress", "trousers"]
    assert other.predict_proba(HAT).sum() < 0.5
    assert other.predict(HAT)[0] in ("dress", "trousers")


def test_cross_validation_and_search(fitted: Classifier) -> None:
    every = cross_val_score(copy_of(fitted), PATHS, LABELS, cv=3)
    assert len(every) == 3
    assert every.mean() > 0.8
    # scikit-learn's scorer takes columns in sorted order, so the loss is small only if they are
    losses = cross_val_score(copy_of(fitted), np.array(PATHS), LABELS, cv=3, scoring="neg_log_loss")
    assert losses.mean() > -np.log(3) / 2
    assert np.mean(cross_val_predict(copy_of(fitted), PATHS, LABELS, cv=3) == np.array(LABELS)) > 0.8
    search = GridSearchCV(copy_of(fitted), {}, cv=3).fit(PATHS, LABELS)
    assert search.best_score_ == pytest.approx(every.mean())
    assert search.predict([HAT])[0] == "hat"
    with pytest.raises(InputError, match="label .*0.*: expected the name of a class as text"):
        fitted.score([HAT], [0])
    assert is_classifier(fitted)  # otherwise folds are not stratified


def test_a_clone_is_detached_from_the_file(tmp_path: Path, fitted: Classifier) -> None:
    fitted.save(tmp_path / "shop.safetensors")
    shop = Classifier.open(tmp_path / "shop.safetensors", device="cpu")
    copy = clone(shop)
    copy.remove("hat")
    assert copy.classes_.tolist() == ["dress", "trousers"]
    assert "hat" in shop.classes_


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_pickles_open_again(how: str, fitted: Classifier, tmp_path: Path) -> None:
    if how == "pickle":
        again = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - our own
    else:
        joblib.dump(fitted, tmp_path / "shop.joblib")
        again = joblib.load(tmp_path / "shop.joblib")
    assert again.classify(TEST_PATHS) == fitted.classify(TEST_PATHS)
    assert again.bank.content_digest == fitted.bank.content_digest
    default = pickle.loads(pickle.dumps(Classifier(device="cpu")))  # noqa: S301 - our own
    assert list(default.class_set(["mug"]).names) == ["mug"]


def test_partial_fit_adds(fitted: Classifier) -> None:
    first = Classifier(device="cpu").partial_fit(PATHS[:16], LABELS[:16])
    assert first.classes_.tolist() == ["dress", "hat"]
    first.partial_fit(PATHS[16:], LABELS[16:])
    assert first.classes_.tolist() == NAMES
    assert len(first.bank.photos_of("trousers")) == 8


def test_bad_images_raise_with_all_their_names(fitted: Classifier, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(ImageError, match=r"bad.jpg: not an image.*; gone.jpg: no such file"):
        fitted.predict([HAT, str(tmp_path / "bad.jpg"), "gone.jpg"])
    assert [result.error is None for result in fitted.classify([HAT, "gone.jpg"])] == [True, False]
