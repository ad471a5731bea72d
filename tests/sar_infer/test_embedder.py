from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bundles import DIM, PREPROCESS, image_weight, name_rows

from sar_infer.bundle import open_bundle
from sar_infer.cache import EmbeddingCache
from sar_infer.embedder import Embedder
from sar_infer.errors import ClassNameError, ImageError, InputError
from sar_infer.preprocess import to_input


@pytest.fixture
def embedder(bundle_path: Path) -> Embedder:
    return Embedder(open_bundle(bundle_path), device="cpu", cache=EmbeddingCache())


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_pictures(embedder: Embedder) -> None:
    raw = [to_input(Image.fromarray(picture(seed)), PREPROCESS).mean(axis=(1, 2)) @ image_weight() for seed in range(3)]
    expected = [row / np.linalg.norm(row) for row in raw]
    rows = embedder.embed_images([picture(seed) for seed in range(3)], batch_size=2)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_images(picture(1)), expected[1:2], atol=1e-5)
    with pytest.raises(ImageError, match=r"image\[1\]: not an image"):
        embedder.embed_images([picture(0), b"bad"])


def test_names(embedder: Embedder) -> None:
    names = ["owl", "cat", "owl"]
    np.testing.assert_allclose(embedder.embed_names(names), name_rows(names), atol=1e-6)
    with pytest.raises(ClassNameError, match="too long"):
        embedder.check_name("x" * 500)
    embedder.check_name("owl")


def test_names_of_any_iterable_and_never_the_letters_of_one(embedder: Embedder) -> None:
    names = ["owl", "cat"]
    np.testing.assert_array_equal(embedder.embed_names(name for name in names), embedder.embed_names(names))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a list of names, got the string 'owl'"):
        embedder.embed_names("owl")


@pytest.mark.parametrize("device", ["cuda:0", "gpu", "CPU"])
def test_other_devices_are_not_taken_for_auto(bundle_path: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"device: expected auto, cpu, cuda, got '{device}'"):
        Embedder(open_bundle(bundle_path), device=device)  # type: ignore[arg-type]


def test_a_batch_of_nothing_is_refused(embedder: Embedder) -> None:
    with pytest.raises(InputError, match="batch_size of 1 or more, got 0"):
        embedder.embed_images(picture(0), batch_size=0)


def test_phrases_are_averaged_on_the_sphere(embedder: Embedder) -> None:
    mean = name_rows(["zebra", "striped horse"]).mean(axis=0)
    expected = [mean / np.linalg.norm(mean), name_rows(["owl"])[0]]
    np.testing.assert_allclose(embedder.embed_phrases([("zebra", "striped horse"), ("owl",)]), expected, atol=1e-6)


def test_nothing_gives_no_rows(embedder: Embedder) -> None:
    assert embedder.embed_names([]).shape == embedder.embed_images([]).shape == (0, DIM)
    assert embedder.embed_phrases([]).shape == embedder.encode([]).shape == (0, DIM)


def test_once_started_the_folder_is_not_needed(bundle_copy: Path) -> None:
    embedder = Embedder(open_bundle(bundle_copy), device="cpu", cache=EmbeddingCache())
    embedder.start(names=True)
    for file in bundle_copy.iterdir():
        file.unlink()
    assert embedder.embed_images(picture(0)).shape == embedder.embed_names(["owl"]).shape == (1, DIM)
