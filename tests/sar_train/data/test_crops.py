"""Crops of training photos: another one every epoch, the same whenever it is asked for, kept or decoded again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.photos import write_folder
from support.tiny import tiny_backbone

from sar_train.data import crops as module
from sar_train.data.crops import Crops
from sar_train.data.folder import load_folder
from sar_train.data.photo_source import PhotoSource
from sar_train.data.views import pixels

ROWS = [7, 0, 3]


@pytest.fixture
def source(tmp_path: Path) -> PhotoSource:
    dataset = load_folder(write_folder(tmp_path / "photos", {"a": 9, "b": 9}), 5, 1)
    return PhotoSource(dataset, tiny_backbone())


@pytest.mark.parametrize("most_bytes", [10**9, 0], ids=["kept", "decoded again"])
def test_an_epoch_has_a_random_view_of_each_photo(source: PhotoSource, most_bytes: int) -> None:
    crops = Crops(source, ROWS, most_bytes=most_bytes)
    for epoch in (1, 2, 200, 1):
        for row, ours in zip((2, 0), crops(torch.tensor([2, 0]), epoch), strict=True):
            photo = source.dataset.train[ROWS[row]]
            (wanted,) = pixels(photo.path, source.backbone.preprocess, source.dataset.relative(photo), [epoch], 1)
            assert torch.equal(ours, torch.from_numpy(wanted))


def test_epochs_seeds_and_photos_have_views_of_their_own(source: PhotoSource) -> None:
    other = Crops(PhotoSource(source.dataset, source.backbone, seed=2), ROWS)
    crops = Crops(source, ROWS)
    found = torch.cat([crops(torch.arange(3), 1), crops(torch.arange(3), 2), other(torch.arange(3), 1)])
    assert len(found.flatten(1).unique(dim=0)) == 9


def test_photos_are_decoded_once_as_far_as_memory_is_given(
    source: PhotoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    load = module.load
    monkeypatch.setattr(module, "load", lambda path, spec: decoded.append(path) or load(path, spec))
    photos = [source.dataset.train[row].path for row in ROWS]
    sizes = [3 * image.width * image.height for image in (load(path, source.backbone.preprocess) for path in photos)]
    crops = Crops(source, ROWS, most_bytes=sizes[0] + sizes[1])
    for epoch in (1, 2, 3):
        for row in range(3):
            crops(torch.tensor([row]), epoch)
    assert decoded == [*photos, photos[2], photos[2]]
