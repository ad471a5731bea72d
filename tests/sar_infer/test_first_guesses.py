"""Python as people write it first; every line here was somebody's first guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bundles import DIM, write_bundle

from sar_infer import ClassBank, Classifier
from sar_infer.encoders import cache
from sar_infer.errors import InputError

NAMES = ("mug", "plate", "bowl", "spoon")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle, and with photos of four classes, each of its own colour, in train/ and test/."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        for photo in range(5):
            folder = tmp_path / ("train" if photo < 4 else "test") / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 40, (40, 40, 3)) + 210 * np.array([number & 1, number >> 1, 0])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{photo}.png")
    write_bundle(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened() -> Classifier:
    return Classifier.open("bundle", device="cpu")


def paths(name: str, folder: str = "train") -> list[str]:
    return sorted(map(str, Path(folder, name).iterdir()))


def right(classifier: Classifier) -> int:
    return sum(
        result.predictions[0].label == name for name in NAMES for result in classifier.classify(paths(name, "test"))
    )


def test_from_examples_knows_exactly_these_classes(shop: Path) -> None:
    classifier = Classifier.from_examples("train/", path="bundle", device="cpu")
    assert sorted(classifier.bank.names) == sorted(NAMES)
    assert classifier.bank.fitted is not None
    assert right(classifier) == 4
    classifier.bank.save(shop / "shop.safetensors")
    again = Classifier.open("bundle", bank="shop.safetensors", device="cpu")
    assert again.classify("test/mug")[0] == classifier.classify("test/mug")[0]


def test_fit_takes_a_folder_a_dictionary_or_paths_with_labels_and_returns_the_classifier(shop: Path) -> None:
    by_folder = opened().fit("train/")
    by_name = opened().fit({name: paths(name) for name in NAMES})
    folders = opened().fit({name: f"train/{name}" for name in NAMES})
    every = [(path, name) for name in NAMES for path in paths(name)]
    labelled = opened().fit([path for path, _ in every], [name for _, name in every])
    for classifier in (by_folder, by_name, folders, labelled):
        assert sorted(classifier.bank.names) == sorted(NAMES)
        assert right(classifier) == 4
        assert len(classifier.bank.photos_of("mug")) == 4


def test_two_classes_are_enough(shop: Path) -> None:
    classifier = opened().fit({"good": paths("mug"), "defective": paths("bowl")})
    assert [classifier.classify(f"test/{name}")[0].predictions[0].label for name in ("mug", "bowl")] == [
        "good",
        "defective",
    ]


def test_evaluate_and_classify_take_the_same(shop: Path) -> None:
    classifier = opened().fit("train/")
    assert classifier.evaluate("test/").accuracy.share == 1
    every = [(path, name) for name in NAMES for path in paths(name, "test")]
    evaluation = classifier.evaluate([path for path, _ in every], [name for _, name in every])
    assert (evaluation.accuracy.count, evaluation.accuracy.of) == (4, 4)
    assert len(classifier.classify("test")) == 4  # a folder, with all below it
    result = opened().classify("test/mug/4.png", examples="train/")
    assert result.predictions[0].label == "mug"
    assert {prediction.label for prediction in result.predictions} == {*NAMES}


def test_add(shop: Path) -> None:
    classifier = opened()
    before = classifier.bank.names
    classifier.add("stapler").add("mug", photos=paths("mug"))
    assert classifier.bank.names == (*before, "stapler", "mug")
    assert len(classifier.bank.photos_of("mug")) == 4
    row = classifier.bank.entry("mug").embedding
    classifier.add("mug", photos="train/plate")
    assert len(classifier.bank.photos_of("mug")) == 8
    np.testing.assert_array_equal(classifier.bank.entry("mug").embedding, row)
    classifier.add("mug", phrases=["a cup", "a mug"])
    assert classifier.bank.entry("mug").phrases == ("a cup", "a mug")


def test_add_changes_the_bank_file(shop: Path) -> None:
    opened().bank.save(shop / "shop.safetensors")
    one, other = (Classifier.open("bundle", bank="shop.safetensors", device="cpu") for _ in range(2))
    one.add("stapler")
    assert "stapler" in other.bank.names
    assert ClassBank.load(shop / "shop.safetensors").history[-1].by == "Python"


def test_encode(shop: Path) -> None:
    one = opened().encode("test/mug/4.png")
    assert one.shape == (DIM,)
    np.testing.assert_array_equal(opened().encode(["test/mug/4.png", "test/bowl/4.png"])[0], one)
    with Image.open("test/mug/4.png") as image:
        np.testing.assert_array_equal(opened().encode(image.convert("RGB")), one)
    np.testing.assert_array_equal(opened().encode(np.asarray(Image.open("test/mug/4.png"))), one)


def test_examples_are_embedded_once(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.classifier.photo_cache", cache.RecentCache())
    classifier, embedded = opened(), []
    encode = Classifier.encode
    monkeypatch.setattr(
        Classifier, "encode", lambda self, images, *rest: embedded.extend(images) or encode(self, images)
    )
    first = classifier.fit("train/").bank
    assert len(embedded) == 16
    second = classifier.fit("train/").bank
    assert len(embedded) == 16
    assert first.content_digest == second.content_digest
    (shop / "train" / "mug" / "new.png").write_bytes(Path("test/mug/4.png").read_bytes())
    photos = list(classifier.each_photo(paths("mug")))
    assert len(embedded) == 17
    assert [name for name, _, _ in photos] == paths("mug")


def test_what_cannot_be_meant_is_one_line(shop: Path) -> None:
    with pytest.raises(InputError, match="no-such: no such file or folder"):
        opened().fit("no-such")
    with pytest.raises(InputError, match="a label for each photo, got 1 for 4"):
        opened().fit(paths("mug"), ["mug"])
    with pytest.raises(InputError, match=r"photos without labels: expected fit\(photos, labels\)"):
        opened().fit(paths("mug"))
    with pytest.raises(InputError, match="2 classes"):
        opened().fit()
