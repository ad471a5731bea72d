"""Features of photos: the right rows, encoded once, the same in any order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from support.opened import opened
from support.photos import SHARED, needs_shared, write_folder, write_photo
from support.tiny import RESNET, tiny_backbone
from torch import Tensor

from sar_train.data import progress
from sar_train.data.dataset import Dataset
from sar_train.data.features import PhotoFeatures
from sar_train.data.views import pixels
from sar_train.errors import DataError

CLOSE = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return opened(write_folder(tmp_path / "photos", {"a": 9, "b": 9}), 5, 1)


@pytest.fixture
def encoded() -> Iterator[list[int]]:
    """How many pictures each call of an image tower gave rows of."""
    sizes: list[int] = []
    towers = [tiny_backbone(), tiny_backbone(seed=1), tiny_backbone(RESNET)]
    hooks = [
        backbone.model.visual.register_forward_hook(lambda _, given, rows: sizes.append(len(rows)))
        for backbone in towers
    ]
    yield sizes
    for hook in hooks:
        hook.remove()


def file(dataset: Dataset, row: int) -> Path:
    return dataset.root / dataset.photos("train")[row].path


def direct(dataset: Dataset, row: int, views: Sequence[int], seed: int = 1) -> Tensor:
    backbone, name = tiny_backbone(), dataset.photos("train")[row].path
    images = pixels(file(dataset, row), backbone.preprocess, name, views, seed)
    return backbone.encode_images(torch.from_numpy(images))


def test_rows_labels_and_views(dataset: Dataset) -> None:
    features = PhotoFeatures(dataset, tiny_backbone(), views=3)
    assert features.labels("train").tolist() == [0] * 5 + [1] * 5
    views = features.views("train", [7, 0])
    assert views.shape == (2, 3, 32)
    assert views.dtype == torch.float32
    torch.testing.assert_close(views.norm(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(views[0], direct(dataset, 7, [0, 1, 2]), **CLOSE)
    torch.testing.assert_close(views[1], direct(dataset, 0, [0, 1, 2]), **CLOSE)
    assert features.views("test").shape == (len(dataset.photos("test")), 1, 32)
    assert torch.equal(features.plain("train", [7, 0]), views[:, 0])
    assert features.views("val", []).shape == (0, 1, 32)


@pytest.mark.parametrize("views", [1, 3, 8, 12])
def test_any_order_any_subset_any_batch(dataset: Dataset, encoded: list[int], views: int) -> None:
    """Of one view to more than a batch holds; ten photos have more than are decoded ahead."""
    expected = torch.stack([direct(dataset, row, range(views)) for row in range(len(dataset.photos("train")))])
    encoded.clear()
    features = PhotoFeatures(dataset, tiny_backbone(), views=views)
    order = torch.randperm(len(expected), generator=torch.Generator().manual_seed(0))
    for rows in (order[:3], order[2:8], order.tolist(), [4, 4]):
        torch.testing.assert_close(features.views("train", rows), expected[rows], **CLOSE)
    assert sum(encoded) == 10 * views
    assert len(set(encoded)) > 1 or views >= 8


def test_seeds_change_the_random_views_alone(dataset: Dataset) -> None:
    one, two = (PhotoFeatures(dataset, tiny_backbone(), views=2, seed=seed).views("train") for seed in (1, 2))
    torch.testing.assert_close(one[:, 0], two[:, 0], **CLOSE)
    assert (one[:, 1] - two[:, 1]).abs().max() > 1e-3


def test_crops_are_random_views_of_any_number(dataset: Dataset) -> None:
    features = PhotoFeatures(dataset, tiny_backbone(), seed=4)
    rows = [7, 0, 3, 7]
    for view in (1, 200, 1):
        for row, crop in zip(rows, features.crops(torch.tensor(rows), view), strict=True):
            name = dataset.photos("train")[row].path
            (expected,) = pixels(file(dataset, row), tiny_backbone().preprocess, name, [view], 4)
            assert torch.equal(crop, torch.from_numpy(expected))
    assert len(torch.cat([features.crops(range(3), view) for view in (1, 2, 3)]).flatten(1).unique(dim=0)) == 9


def test_nothing_is_encoded_twice(dataset: Dataset, tmp_path: Path, encoded: list[int]) -> None:
    first = PhotoFeatures(dataset, tiny_backbone(), views=2, cache_dir=tmp_path / "cache")
    plain = first.plain("train", [0, 1])
    assert sum(encoded) == 2
    both = first.views("train", [0, 0, 1, 2])
    assert sum(encoded) == 6
    again = PhotoFeatures(dataset, tiny_backbone(), views=2, cache_dir=tmp_path / "cache").views("train", [0, 0, 1, 2])
    assert sum(encoded) == 6
    assert torch.equal(again, both)
    assert torch.equal(again[[0, 2], 0], plain)


def test_another_backbone_and_a_changed_photo_are_encoded_anew(
    dataset: Dataset, tmp_path: Path, encoded: list[int]
) -> None:
    cache = tmp_path / "cache"
    PhotoFeatures(dataset, tiny_backbone(), cache_dir=cache).views("train", [0])
    PhotoFeatures(dataset, tiny_backbone(seed=1), cache_dir=cache).views("train", [0])
    PhotoFeatures(dataset, tiny_backbone(RESNET), cache_dir=cache).views("train", [0])
    write_photo(file(dataset, 0), seed=77, size=(50, 44))
    PhotoFeatures(dataset, tiny_backbone(), cache_dir=cache).views("train", [0])
    assert encoded == [1, 1, 1, 1]


def test_what_was_encoded_before_a_failure_is_kept(dataset: Dataset, tmp_path: Path, encoded: list[int]) -> None:
    file(dataset, 8).write_bytes(b"broken")
    for _ in range(2):
        features = PhotoFeatures(dataset, tiny_backbone(), cache_dir=tmp_path / "cache")
        with pytest.raises(DataError, match=file(dataset, 8).name):
            features.views("train")
    assert sum(encoded) == 8


def test_a_photo_that_is_gone(dataset: Dataset) -> None:
    file(dataset, 0).unlink()
    with pytest.raises(DataError, match=file(dataset, 0).name):
        PhotoFeatures(dataset, tiny_backbone()).views("train", [0])


def test_how_many_photos_are_encoded_is_told(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    told: list[str] = []
    features = PhotoFeatures(dataset, tiny_backbone(), views=3, tell=told.append)
    features.views("train")
    expected = [f"encoding {photos}/10 train photos" for photos in (3, 6, 9, 10)]
    assert [line.partition(",")[0] for line in told] == expected
    features.views("train")
    assert len(told) == len(expected)
    features.map_pixels("test", range(2), lambda pixels: pixels)
    assert told[-1].startswith("encoding 2/2 test photos, about 0 s left")


@needs_shared
def test_real_photos() -> None:
    features = PhotoFeatures(opened("caltech101", data_root=SHARED), tiny_backbone(), views=2)
    rows = [4000, 5, 17]
    assert features.views("train", rows).shape == (3, 2, 32)
    assert features.labels("train")[rows].tolist() == [features.dataset.photos("train")[row].label for row in rows]
