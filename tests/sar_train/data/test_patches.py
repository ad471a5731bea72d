"""What the image tower's first block reads, for any row and view, kept or made again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.photos import write_folder
from support.tiny import tiny_backbone

from sar_train.data.folder import load_folder
from sar_train.data.patches import Patches
from sar_train.data.photo_source import PhotoSource
from sar_train.data.views import pixels
from sar_train.prompts import Prompts

ROWS = [7, 0, 3]


@pytest.fixture
def source(tmp_path: Path) -> PhotoSource:
    dataset = load_folder(write_folder(tmp_path / "photos", {"a": 9, "b": 9}), 5, 1)
    return PhotoSource(dataset, tiny_backbone(), views=3)


@pytest.mark.parametrize("most_bytes", [10**9, 0], ids=["kept", "made again"])
def test_each_row_and_view_is_that_of_the_photo(source: PhotoSource, most_bytes: int) -> None:
    backbone = tiny_backbone()
    assert backbone.image is not None
    patches = Patches(source, ROWS, backbone.image, most_bytes=most_bytes)
    rows, views = torch.tensor([2, 0, 0]), torch.tensor([1, 2, 0])
    found = patches(rows, views)
    assert found.shape == (3, 17, backbone.image.width)  # a class token and 4 x 4 patches
    for row, view, ours in zip(rows.tolist(), views.tolist(), found, strict=True):
        photo = source.dataset.train[ROWS[row]]
        wanted = pixels(photo.path, backbone.preprocess, source.dataset.relative(photo), [view], 1)
        torch.testing.assert_close(ours, backbone.image.embed(torch.from_numpy(wanted))[0], atol=1e-5, rtol=0)


def test_without_prompts_they_lead_to_the_features_of_the_same_views(source: PhotoSource) -> None:
    backbone = tiny_backbone()
    assert backbone.image is not None
    patches = Patches(source, ROWS, backbone.image)
    nothing = Prompts(torch.zeros(0, backbone.text.width))
    made = backbone.image(nothing, patches(torch.arange(3), torch.ones(3, dtype=torch.long)))
    torch.testing.assert_close(made, source.features("train", ROWS)[:, 1], atol=1e-5, rtol=0)
