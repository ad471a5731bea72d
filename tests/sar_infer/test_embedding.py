from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bundles import DIM, PREPROCESS, image_weight, name_rows

from sar_infer.bundle.bundle import open_bundle
from sar_infer.classifier import Classifier
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.errors import ClassNameError, ImageError, InputError
from sar_infer.images.preprocess import to_input


@pytest.fixture
def classifier(bundle_path: Path) -> Classifier:
    return Classifier(open_bundle(bundle_path), device="cpu", cache=EmbeddingCache())


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_pictures(classifier: Classifier) -> None:
    raw = [to_input(Image.fromarray(picture(seed)), PREPROCESS).mean(axis=(1, 2)) @ image_weight() for seed in range(3)]
    expected = [row / np.linalg.norm(row) for row in raw]
    rows = classifier.embed_images([picture(seed) for seed in range(3)], batch_size=2)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(classifier.embed_images(picture(1)), expected[1:2], atol=1e-5)
    with pytest.raises(ImageError, match=r"image\[1\]") as found:
        classifier.embed_images([picture(0), b"bad"])
    assert found.value.kind == "format"


def test_names(classifier: Classifier) -> None:
    names = ["owl", "cat", "owl"]
    np.testing.assert_allclose(classifier.embed_names(names), name_rows(names), atol=1e-6)
    with pytest.raises(ClassNameError, match="too long"):
        classifier.check_name("x" * 500)
    classifier.check_name("owl")


def test_names_of_any_iterable_and_never_the_letters_of_one(classifier: Classifier) -> None:
    names = ["owl", "cat"]
    np.testing.assert_array_equal(classifier.embed_names(name for name in names), classifier.embed_names(names))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'owl'"):
        classifier.embed_names("owl")


@pytest.mark.parametrize("device", ["cuda:0", "gpu", "CPU"])
def test_other_devices_are_not_taken_for_auto(bundle_path: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"'{device}'"):
        Classifier(open_bundle(bundle_path), device=device)  # type: ignore[arg-type]


def test_a_batch_of_nothing_is_refused(classifier: Classifier) -> None:
    with pytest.raises(InputError, match="batch_size"):
        classifier.embed_images(picture(0), batch_size=0)


def test_phrases_are_averaged_on_the_sphere(classifier: Classifier) -> None:
    mean = name_rows(["zebra", "striped horse"]).mean(axis=0)
    expected = [mean / np.linalg.norm(mean), name_rows(["owl"])[0]]
    np.testing.assert_allclose(classifier.embed_phrases([("zebra", "striped horse"), ("owl",)]), expected, atol=1e-6)


def test_nothing_gives_no_rows(classifier: Classifier) -> None:
    assert classifier.embed_names([]).shape == classifier.embed_images([]).shape == (0, DIM)
    assert classifier.embed_phrases([]).shape == classifier.encode([]).shape == (0, DIM)


def test_once_started_the_folder_is_not_needed(bundle_copy: Path) -> None:
    classifier = Classifier(open_bundle(bundle_copy), device="cpu", cache=EmbeddingCache())
    classifier.start(names=True)
    for file in bundle_copy.iterdir():
        file.unlink()
    assert classifier.embed_images(picture(0)).shape == classifier.embed_names(["owl"]).shape == (1, DIM)
