"""Features of photos: the right rows, encoded once, the same in any order, and kept between runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.opened import opened
from support.photos import write_folder, write_photo
from support.tiny import RESNET, tiny_backbone
from torch import Tensor

from sar_train.data import progress
from sar_train.data.cache import FeatureCache
from sar_train.data.dataset import Dataset
from sar_train.data.features import PhotoFeatures
from sar_train.data.views import pixels
from sar_train.errors import DataError

CLOSE = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return opened(write_folder(tmp_path / "my photos…", {"a": 9, "b": 9}), 5, 1)


@pytest.fixture
def encoded() -> Iterator[list[int]]:
    """How many pictures each call of an image tower gave rows of."""
    sizes: list[int] = []
    towers = [tiny_backbone(), tiny_backbone(seed=1), tiny_backbone(RESNET)]
    hooks = [
        backbone.model.visual.register_forward_hook(lambda _, inputs, rows: sizes.append(len(rows)))
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


@pytest.mark.parametrize("views", [1, 3, 8, 12])
def test_any_order_any_subset_any_batch(dataset: Dataset, encoded: list[int], views: int) -> None:
    """Of one view to more than a batch holds; ten photos have more than are decoded ahead."""
    expected = torch.stack([direct(dataset, row, range(views)) for row in range(len(dataset.photos("train")))])
    encoded.clear()
    features = PhotoFeatures(dataset, tiny_backbone(), views=views)
    order = torch.randperm(len(expected), generator=torch.Generator().manual_seed(0))
    for rows in (order[:3], order[2:8], order.tolist(), [4, 4]):
        torch.testing.assert_close(features.views("train", rows), expected[rows], **CLOSE)
        torch.testing.assert_close(features.plain("train", rows), expected[rows, 0], **CLOSE)
    assert sum(encoded) == 10 * views
    assert len(set(encoded)) > 1 or views >= 8
    assert features.labels("train").tolist() == [0] * 5 + [1] * 5
    assert features.views("test").shape == (len(dataset.photos("test")), 1, 32)
    assert features.views("val", []).shape == (0, 1, 32)


def test_nothing_is_encoded_twice(dataset: Dataset, tmp_path: Path, encoded: list[int]) -> None:
    cache = tmp_path / "cache"
    first = PhotoFeatures(dataset, tiny_backbone(), views=2, cache_dir=cache)
    plain = first.plain("train", [0, 1])
    both = first.views("train", [0, 0, 1, 2])
    assert sum(encoded) == 6
    again = PhotoFeatures(dataset, tiny_backbone(), views=2, cache_dir=cache).views("train", [0, 0, 1, 2])
    assert sum(encoded) == 6
    assert torch.equal(again, both)
    assert torch.equal(again[[0, 2], 0], plain)
    (folder,) = cache.iterdir()
    assert folder.name.startswith("my_photos_-")


def test_another_backbone_and_a_changed_photo_are_encoded_anew(
    dataset: Dataset, tmp_path: Path, encoded: list[int]
) -> None:
    def encode(seed: int = 0, model: str | None = None) -> None:
        backbone = tiny_backbone(model) if model else tiny_backbone(seed=seed)
        PhotoFeatures(dataset, backbone, cache_dir=tmp_path / "cache").views("train", [0])

    encode()
    encode(seed=1)
    encode(model=RESNET)
    write_photo(file(dataset, 0), seed=77, size=(50, 44))
    encode()
    os.utime(file(dataset, 0), ns=(1, 1))
    encode()
    time.sleep(0.02)  # a file system's clock may tick a hundred times a second
    file(dataset, 0).write_bytes(file(dataset, 0).read_bytes())
    os.utime(file(dataset, 0), ns=(1, 1))  # as an archive does that gives all files one time
    encode()
    assert encoded == [1] * 6
    encode()
    assert encoded == [1] * 6


def test_what_was_encoded_before_a_failure_is_kept(dataset: Dataset, tmp_path: Path, encoded: list[int]) -> None:
    file(dataset, 8).write_bytes(b"broken")
    for _ in range(2):
        features = PhotoFeatures(dataset, tiny_backbone(), cache_dir=tmp_path / "cache")
        with pytest.raises(DataError, match=file(dataset, 8).name):
            features.views("train")
    assert sum(encoded) == 8
    file(dataset, 8).unlink()
    with pytest.raises(DataError, match=file(dataset, 8).name):
        PhotoFeatures(dataset, tiny_backbone()).views("train", [8])


@pytest.mark.parametrize("kind", ["bytes", "size", "nan", "keys", "tensor"])
def test_damaged_files_are_left_aside(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    keys, rows = torch.zeros(2, 16, dtype=torch.uint8), torch.ones(2, 8)
    content = {
        "size": {"keys": keys, "features": torch.ones(2, 9)},
        "nan": {"keys": keys, "features": rows * float("nan")},
        "keys": {"keys": keys[:1], "features": rows},
        "tensor": {"keys": keys},
    }
    if kind == "bytes":
        path.write_bytes(b"garbage")
    else:
        save_file(content[kind], path)
    lines: list[str] = []
    assert bytes(16) not in FeatureCache(tmp_path, 8, lines.append)
    assert "is damaged and ignored" in lines[0]


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lines: list[str] = []
    features = PhotoFeatures(dataset, tiny_backbone(), cache_dir=tmp_path / "file", tell=lines.append)
    assert features.plain("train").shape == (10, 32)
    assert features.plain("test").isfinite().all()
    (warning,) = [line for line in lines if line.startswith("Warning: ")]
    assert str(tmp_path / "file") in warning


def test_how_many_photos_are_encoded_or_mapped_is_told(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    lines: list[str] = []
    features = PhotoFeatures(dataset, tiny_backbone(), views=3, tell=lines.append)
    features.views("train")
    assert [line.partition(",")[0] for line in lines] == [f"encoding {n}/10 train photos" for n in (3, 6, 9, 10)]
    features.views("train")
    assert len(lines) == 4
    images = features.map_pixels("test", [3, 1], lambda images: images)
    photos = [dataset.photos("test")[row].path for row in (3, 1)]
    expected = [pixels(dataset.root / path, tiny_backbone().preprocess, path, [0], 1) for path in photos]
    assert torch.equal(images, torch.cat([torch.from_numpy(image) for image in expected]))
    assert lines[-1].startswith("encoding 2/2 test photos, about 0 s left")
