"""First guesses of people who know other libraries, on the shipped bundle: each works, or its error names the call."""

from __future__ import annotations

import pickle
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics, pipeline
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score

from sar_infer import BankError, ClassBank, Classifier, ImageError, InputError
from sar_infer.bank import set_class
from sar_infer.encoders import cache
from sar_infer.errors import WriteError
from sar_infer.storage import files

ROOT = Path(__file__).parents[2] / "examples" / "clothes"
TRAIN, TEST = ROOT / "train", ROOT / "test"
NAMES = ["dress", "hat", "trousers"]
PATHS = [str(path) for name in NAMES for path in sorted((TRAIN / name).iterdir())[:8]]
LABELS = [name for name in NAMES for _ in range(8)]
TEST_PATHS = [str(path) for name in NAMES for path in sorted((TEST / name).iterdir())[:4]]
TEST_LABELS = [name for name in NAMES for _ in range(4)]
HAT = TEST_PATHS[4]
GUESSES = {
    # scikit-learn
    "Classifier(device='cpu').fit(PATHS, LABELS).classes_.tolist()": "it == NAMES",
    "Classifier(device='cpu').partial_fit(PATHS, LABELS).classes_.tolist()": "it == NAMES",
    "model.predict(TEST_PATHS)": "it.dtype.kind == 'U' and np.mean(it == np.array(TEST_LABELS)) >= 0.75",
    "model.predict_proba(TEST_PATHS)": "(it.shape, it.dtype) == ((12, 3), np.float64)",
    "model.score(TEST_PATHS, TEST_LABELS)": "it == np.mean(model.predict(TEST_PATHS) == np.array(TEST_LABELS))",
    "confusion_matrix(TEST_LABELS, model.predict(TEST_PATHS))": "it.sum() == 12",
    "classification_report(TEST_LABELS, model.predict(TEST_PATHS))": "'trousers' in it",
    "clone(model).classes_.tolist()": "it == NAMES",
    "model.get_params()": "it == {}",
    "pickle.loads(pickle.dumps(model)).predict([HAT]).tolist()": "it == ['hat']",
    "is_classifier(model)": "it",
    "make_pipeline(Classifier(device='cpu')).fit(PATHS, LABELS).predict([HAT])[0]": "it == 'hat'",
    "model.kneighbors([HAT])": AttributeError("nearest"),
    "model.add_class('mug', [HAT])": AttributeError("add"),
    # transformers, a pipeline of zero-shot image classification
    "pipe(HAT, candidate_labels=['hat', 'dog'])": "{one['label'] for one in it.predictions} == {'hat', 'dog'}",
    "pipe(HAT, candidate_labels=['hat', 'dog'])[0]['label']": "it == 'hat'",
    "pipe(HAT, candidate_labels=['hat', 'dog'])[0]['score']": "0.5 < it <= 1",
    "pipe(images=TEST_PATHS[:2], candidate_labels=['hat', 'dog'])": "len(it) == 2",
    "pipe(Image.open(HAT), candidate_labels=['hat', 'dog'])[0].label": "it == 'hat'",
    "model(HAT, top_k=1)": "len(it.predictions) == 1",
    "model([HAT, HAT], batch_size=2)": "len(it) == 2",
    "model(HAT, ['mug'], top_k=9)": "it[0].label == 'hat'",
    "pipe('https://example.org/cat.jpg', candidate_labels=['hat']).error": "'download it' in it",
    "model.id2label": AttributeError("classes_"),
    "model.get_image_features(HAT)": AttributeError("encode"),
    # ultralytics
    "Classifier(file)(HAT).label": "it == 'hat'",
    "model(str(TEST / 'hat'))": "len(it) == 15",
    "[result.label for result in model([HAT, HAT])]": "it == ['hat', 'hat']",
    "next(iter(model.stream(TEST_PATHS))).image": "it == TEST_PATHS[0]",
    "model(np.asarray(Image.open(HAT).convert('RGB'))).score": "it > 0.5",
    "model([HAT])[0].probs.top1": AttributeError("label, score"),
    "model(HAT)[0].boxes": AttributeError("label, score"),
    "model(HAT).show()": AttributeError("label, score"),
    "model.names": AttributeError("classes_"),
    "model.train(data=str(TRAIN))": AttributeError("fit"),
    "model.val()": AttributeError("evaluate"),
    "model.export(format='onnx')": AttributeError("sar-bundle onnx"),
    # setfit
    "Classifier.from_pretrained(file).predict([HAT])[0]": "it == 'hat'",
    "model.save_pretrained(folder / 'again.safetensors')": "(folder / 'again.safetensors').exists()",
    "model.save_pretrained(folder / 'again')": InputError(r"ends in \.safetensors"),
    "model.push_to_hub('me/shop')": AttributeError("save"),
    "model.labels": AttributeError("classes_"),
    "Classifier.load(file)": AttributeError("open"),
    "Classifier.from_folder(str(TRAIN))": AttributeError("from_examples"),
    "Classifier.from_hub('me/shop')": AttributeError("hf://"),
    # fastembed
    "Classifier().encode([HAT, HAT])": "it.shape[0] == 2",
    "np.array(list(model.encode(iter(TEST_PATHS)))).shape[0]": "it == 12",
    "model.encode(HAT)": "it.ndim == 1 and abs(np.linalg.norm(it) - 1) < 1e-5",
    "list(model.embed([HAT]))": AttributeError("encode"),
}
"""Each first guess, and a condition for its result (``it``), or an error and a word of its message."""


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    return Classifier(device="cpu").fit(PATHS, LABELS)


@pytest.fixture(scope="module")
def names(fitted: Classifier, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("guesses")
    fitted.save(folder / "shop.safetensors")
    pipe = Classifier(device="cpu")
    return {
        **globals(),
        **vars(metrics),
        **vars(pipeline),
        "model": fitted,
        "pipe": pipe,
        "folder": folder,
        "file": folder / "shop.safetensors",
    }


@pytest.mark.parametrize("guess", GUESSES)
def test_a_guess_works_or_its_error_names_the_call(guess: str, names: dict[str, object]) -> None:
    expected = GUESSES[guess]
    if isinstance(expected, Exception):
        with pytest.raises(type(expected), match=str(expected)):
            eval(guess, names)  # noqa: S307 - the lines above
    else:
        assert eval(expected, {**names, "it": eval(guess, names)})  # noqa: S307


def test_at_least_thirty_of_forty_guesses_work() -> None:
    assert len(GUESSES) >= 40
    assert sum(isinstance(expected, str) for expected in GUESSES.values()) >= 30


def copy_of(fitted: Classifier) -> Classifier:
    return clone(fitted)


# ------------------------------------------------------------------------------------------------------- scikit-learn
def test_probabilities_are_the_scores_of_classify_in_the_order_of_the_classes(fitted: Classifier) -> None:
    assert fitted.classes_.tolist() == sorted(NAMES)
    scores = fitted.predict_proba(TEST_PATHS)
    assert (scores.dtype, scores.shape) == (np.float64, (12, 3))
    for row, result in zip(scores, fitted.classify(TEST_PATHS), strict=True):
        expected = {prediction.label: prediction.score for prediction in result.predictions}
        assert dict(zip(fitted.classes_.tolist(), row, strict=True)) == pytest.approx(expected, abs=1e-5)


def test_a_background_class_has_no_column(fitted: Classifier) -> None:
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
    with pytest.raises(InputError, match="label 0: expected the name of a class as text"):
        copy_of(fitted).fit({0: [HAT]})
    assert is_classifier(fitted)  # otherwise folds are not stratified


def test_nothing_but_a_bank_is_replaced_by_one(tmp_path: Path, fitted: Classifier) -> None:
    for name in ("photo.jpg", "model.safetensors"):
        (tmp_path / name).write_bytes(b"of somebody else")
        with pytest.raises(BankError, match="not a bank file"):
            fitted.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"of somebody else"


def test_save_takes_nothing_from_others(tmp_path: Path, fitted: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shop.safetensors"
    fitted.save(file)
    shop, written = Classifier(file), file.stat()
    shop.save(file)  # its own file has its changes already
    assert file.stat() == written
    with pytest.raises(BankError, match="overwrite=True"):
        fitted.save(file)
    monkeypatch.setattr(files, "WAIT", 0.05)
    with files.owned(file), pytest.raises(WriteError, match="another process is changing it"):
        fitted.save(file, overwrite=True)
    copy_of(fitted).remove("hat").save(file, overwrite=True)
    assert shop.classes_.tolist() == ["dress", "trousers"]


def test_predict_answers_by_one_state_of_the_bank(tmp_path: Path, fitted: Classifier) -> None:
    fitted.save(tmp_path / "shop.safetensors")
    shop = Classifier(tmp_path / "shop.safetensors")

    def photos() -> Iterator[str]:
        yield HAT
        Classifier(tmp_path / "shop.safetensors").remove("dress")

    assert shop.predict(photos()).tolist() == ["hat"]
    assert shop.classes_.tolist() == ["hat", "trousers"]


def test_first_photos_by_threads_lose_no_class() -> None:
    shop = Classifier(device="cpu")
    with ThreadPoolExecutor(len(NAMES)) as pool:
        list(pool.map(lambda n: shop.partial_fit(PATHS[8 * n : 8 * n + 3], LABELS[8 * n : 8 * n + 3]), range(3)))
    assert shop.classes_.tolist() == NAMES


def test_a_clone_is_detached_from_the_file(tmp_path: Path, fitted: Classifier) -> None:
    fitted.save(tmp_path / "shop.safetensors")
    shop = Classifier.open(tmp_path / "shop.safetensors", device="cpu")
    copy = clone(shop)
    copy.remove("hat")
    assert copy.classes_.tolist() == ["dress", "trousers"]
    assert "hat" in shop.classes_


def test_photos_may_be_a_folder_a_dictionary_or_paths_with_labels(tmp_path: Path) -> None:
    for name in NAMES[:2]:
        shutil.copytree(TRAIN / name, tmp_path / name)
    folders = {name: tmp_path / name for name in NAMES[:2]}
    paths = {name: sorted(map(str, folder.iterdir())) for name, folder in folders.items()}
    labelled = [path for of in paths.values() for path in of], (name for name, of in paths.items() for _ in of)
    banks = [Classifier(device="cpu").fit(photos).bank for photos in (tmp_path, folders, paths)]
    assert len({bank.content_digest for bank in [*banks, Classifier(device="cpu").fit(*labelled).bank]}) == 1
    assert banks[0].names == ("dress", "hat")
    assert banks[0].fitted is not None  # two classes are enough
    result = Classifier(device="cpu").classify(HAT, examples=tmp_path)
    assert (result.label, len(result.predictions)) == ("hat", 2)


def test_what_cannot_be_meant_is_one_line(fitted: Classifier) -> None:
    with pytest.raises(InputError, match="no-such: no such file or folder"):
        fitted.fit("no-such")
    with pytest.raises(InputError, match="a label for each photo, got 1 for 24"):
        fitted.fit(PATHS, ["mug"])
    with pytest.raises(InputError, match=r"photos without labels: expected fit\(photos, labels\)"):
        fitted.fit(PATHS)
    with pytest.raises(InputError, match="2 classes"):
        Classifier(device="cpu").fit()


def test_photos_and_phrases_of_a_class(fitted: Classifier) -> None:
    shop = copy_of(fitted)
    row = shop.bank.entry("hat").embedding
    shop.add("hat", photos=TEST_PATHS[4:6])
    assert len(shop.bank.photos_of("hat")) == 10
    np.testing.assert_array_equal(shop.bank.entry("hat").embedding, row)
    assert shop.add("hat", phrases=["a cap", "a hat"]).bank.entry("hat").phrases == ("a cap", "a hat")


def test_changes_are_in_the_bank_file(fitted: Classifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "shop.safetensors")
    one, other = (Classifier(tmp_path / "shop.safetensors", device="cpu") for _ in range(2))
    one.add("stapler")
    assert "stapler" in other.bank.names
    assert ClassBank.load(tmp_path / "shop.safetensors").history[-1].by == "Python"
    content = (tmp_path / "shop.safetensors").read_bytes()
    with pytest.warns(UserWarning, match=r"fit leaves .*shop\.safetensors as it is"):
        one.fit(PATHS, LABELS)
    assert (tmp_path / "shop.safetensors").read_bytes() == content


def test_examples_are_embedded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.classifier.photo_cache", cache.RecentCache())
    shutil.copytree(TRAIN / "hat", tmp_path / "hat")
    classifier, embedded, encode = Classifier(device="cpu"), list[object](), Classifier.embed_inputs
    monkeypatch.setattr(
        Classifier, "embed_inputs", lambda self, images, *rest: embedded.extend(images) or encode(self, images)
    )
    first = classifier.embed_photos(sorted((tmp_path / "hat").iterdir()))
    assert len(embedded) == 16
    shutil.copy(HAT, tmp_path / "hat" / "new.jpg")
    paths = sorted((tmp_path / "hat").iterdir())
    assert [name for name, _, _ in classifier.each_photo(paths)] == [str(path) for path in paths]
    assert len(embedded) == 17
    assert first.digests == classifier.embed_photos(paths[:16]).digests


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


# ---------------------------------------------------- transformers, ultralytics, setfit, fastembed: results and names
def test_the_classes_of_a_call(fitted: Classifier) -> None:
    assert str(fitted(HAT)).startswith(f"{HAT}: hat ")
    assert {one.label for one in Classifier(device="cpu").classify(HAT, classes=["hat", "dog"])} == {"hat", "dog"}
    assert [one.label for one in fitted(HAT, candidate_labels=["mug"])] == ["mug"]


@pytest.mark.parametrize(
    "image",
    [
        Path(HAT),
        np.str_(HAT),
        Path(HAT).read_bytes(),
        bytearray(Path(HAT).read_bytes()),
        Image.open(HAT),
        np.asarray(Image.open(HAT).convert("RGB")),
    ],
    ids=["Path", "numpy.str_", "bytes", "bytearray", "PIL", "array"],
)
def test_whatever_is_an_image_gives_one_result(fitted: Classifier, image: object) -> None:
    assert fitted(image).label == fitted.predict(image)[0] == "hat"  # type: ignore[arg-type]
    assert fitted.encode(image).ndim == 1
    assert len(fitted.classify([image])) == 1  # type: ignore[list-item]


def test_open_files_series_arrays_of_paths_and_iterators(fitted: Classifier) -> None:
    with Path(HAT).open("rb") as stream:
        assert fitted(stream).label == "hat"
    for several in (np.array(TEST_PATHS), pd.Series(TEST_PATHS), iter(TEST_PATHS), tuple(TEST_PATHS)):
        assert len(fitted(several)) == 12
    batch = np.stack([np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in TEST_PATHS[:3]])
    assert len(fitted(batch)) == len(fitted.encode(batch)) == 3
    assert next(iter(fitted.stream(iter(TEST_PATHS)))).image == TEST_PATHS[0]
    with pytest.raises(InputError, match="images: expected a path, .* got NoneType"):
        fitted.classify(None)  # type: ignore[arg-type]
    with Path(HAT).open(encoding="latin-1") as text:
        assert "open(path, 'rb')" in str(fitted(text).error)


def test_a_table_of_results(fitted: Classifier) -> None:
    table = pd.DataFrame(result.as_row() for result in fitted([*TEST_PATHS, "gone.jpg"]))
    assert table["label"].tolist()[:-1] == fitted.predict(TEST_PATHS).tolist()
    assert table["error"].tolist()[-1] == "no such file"
    assert fitted("gone.jpg").score is None


def test_a_notebook_shows_the_photo_and_its_bars(fitted: Classifier) -> None:
    page = fitted(HAT)._repr_html_()
    assert "data:image/jpeg;base64," in page
    assert "hat" in page
    assert "<b>.jpg" not in fitted("<b>.jpg")._repr_html_()


def test_it_opens_what_it_saved_and_says_what_it_is(fitted: Classifier, tmp_path: Path) -> None:
    file = tmp_path / "shop.safetensors"
    fitted.save(file)
    for opened in (Classifier(file), Classifier(str(file)), Classifier.open(file), Classifier.from_pretrained(file)):
        assert opened.classes_.tolist() == NAMES
    assert "3 classes ('dress', 'hat', 'trousers'), 24 photos" in repr(Classifier(file))
    assert "shop.safetensors" in repr(Classifier(file))
    assert Classifier(fitted.bundle.path).bundle.manifest.digest == fitted.bundle.manifest.digest
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        fitted.save_pretrained(tmp_path / "folder")


def test_classes_change_and_changes_are_undone(fitted: Classifier) -> None:
    shop = copy_of(fitted)
    with pytest.warns(UserWarning, match=r"without photos of 'shoes'; fit it again: fit\(\)"):
        shop.add("shoes", TEST / "shoes")
    shop.rename("hat", "cap").remove("dress")
    assert shop.classes_.tolist() == ["cap", "shoes", "trousers"]
    assert shop.undo(2).classes_.tolist() == ["dress", "hat", "shoes", "trousers"]


# --------------------------------------------------------------------------------------------- what the commands tell
def test_labels_are_checked_and_a_warning_tells(tmp_path: Path) -> None:
    labels = [*LABELS]
    labels[0] = "hat"
    wrong = Classifier(device="cpu")
    with pytest.warns(UserWarning, match=r"dress/0+\.jpg \(like 'dress'\)"):
        wrong.fit(PATHS, labels)
    assert wrong.label_check is not None
    assert [issue.photo for issue in wrong.label_check.issues] == [PATHS[0]]
    check = wrong.check_labels(PATHS, labels, page=tmp_path / "labels.html")
    assert [issue.suggested for issue in check.issues] == ["dress"]
    assert "dress/00.jpg" in (tmp_path / "labels.html").read_text("utf-8")
    assert wrong.check_labels([*PATHS, PATHS[0]], [*LABELS, "hat"]).twice


def test_expected_accuracy_evaluation_and_calibration(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shop = Classifier.from_examples(TRAIN, device="cpu")
    assert shop.expected_accuracy is not None
    assert 0.5 < shop.expected_accuracy < 1
    tested = {name: TEST / name for name in shop.classes_.tolist()}
    evaluation = shop.evaluate(tested, page=tmp_path / "evaluation.html")
    assert evaluation.accuracy.share == pytest.approx(shop.score(tested))
    assert (tmp_path / "evaluation.html").stat().st_size > 10_000
    measured = shop.calibrate(tested).measured
    assert measured["photos"] == 90
    assert shop.bank.calibration is not None


def test_unlabelled_photos_are_learned_from(fitted: Classifier) -> None:
    shop = copy_of(fitted)
    report = shop.learn(TEST / "trousers", all_known=True)
    assert report.photos == 15
    assert shop.bank.learned is not None
    assert fitted.bank.learned is None


def test_the_nearest_photos_that_taught(fitted: Classifier) -> None:
    first = fitted.nearest(PATHS[9], 3)
    assert (first[0].photo, first[0].label) == (PATHS[9], "hat")
    assert first[0].similarity == pytest.approx(1, abs=1e-5)
    again = pickle.loads(pickle.dumps(fitted)).nearest(PATHS[9], 1)  # noqa: S301 - our own
    assert again[0].photo == next(iter(fitted.bank.photos_of("hat").recent)).hex() or len(again[0].photo) == 64


def test_unreadable_photos_are_all_named_or_skipped(tmp_path: Path) -> None:
    for name in ("hat", "dress"):
        shutil.copytree(TRAIN / name, tmp_path / name)
        (tmp_path / name / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(ImageError, match=r"dress/bad.jpg: .*; .*hat/bad.jpg: "):
        Classifier(device="cpu").fit(tmp_path)
    assert len(Classifier(device="cpu").fit(tmp_path, skip_unreadable=True).bank.photos_of("hat")) == 16
