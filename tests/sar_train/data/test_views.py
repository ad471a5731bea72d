"""Views are a function of seed, name and number alone, and have RandomResizedCrop's statistics."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image
from support.photos import write_photo
from torchvision.transforms import RandomResizedCrop

from sar_infer.bundle.manifest import Preprocess
from sar_train.data.views import crop_box, load, pixels
from sar_train.errors import DataError

SPEC = Preprocess(32, "shortest", "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_photo(tmp_path / "x.png", size=(90, 60))


def test_the_plain_view_is_open_clips_evaluation(photo: Path) -> None:
    transform = image_transform(32, is_train=False, mean=SPEC.mean, std=SPEC.std)
    expected = transform(Image.open(photo))
    torch.testing.assert_close(torch.from_numpy(pixels(photo, SPEC, "x", [0], 1)[0]), expected, atol=1e-6, rtol=0)


def test_views_do_not_depend_on_what_else_is_asked(photo: Path) -> None:
    together = pixels(photo, SPEC, "x", [0, 1, 2, 3], 1)
    assert together.shape == (4, 3, 32, 32)
    random.seed(5)
    torch.manual_seed(5)
    for view in (3, 1, 0, 2):
        assert np.array_equal(pixels(photo, SPEC, "x", [view], 1)[0], together[view])
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(lambda _: pixels(photo, SPEC, "x", [2], 1)[0], range(16)):
            assert np.array_equal(again, together[2])


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers())
def test_crops_lie_inside(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = crop_box(width, height, random.Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_crops_are_distributed_as_torchvisions() -> None:
    rng, size = random.Random(0), (300, 200)
    ours = np.array([crop_box(*size, rng) for _ in range(4000)], dtype=float)
    torch.manual_seed(0)
    picture = torch.empty(3, size[1], size[0])
    theirs = np.array([RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], float)
    measured = np.stack([ours[:, 0], ours[:, 1], ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]])
    expected = np.stack([theirs[:, 1], theirs[:, 0], theirs[:, 3], theirs[:, 2]])
    np.testing.assert_allclose(measured.mean(1), expected.mean(1), rtol=0.05)
    np.testing.assert_allclose(measured.std(1), expected.std(1), rtol=0.05)


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"not a photo")
    with pytest.raises(DataError, match="x.jpg.*--skip-unreadable"):
        pixels(tmp_path / "x.jpg", SPEC, "x", [0], 1)
    with pytest.raises(DataError, match="none.jpg"):
        load(tmp_path / "none.jpg", SPEC)
