"""sar-mini-vit as it is shipped: what it shares with sar-mini, its parts, and how near it comes to its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from support.photos import SHARED, needs_shared, write_photo
from torch.nn.functional import cosine_similarity

from sar_infer.images.preprocess import to_input
from sar_train.clip import backbone, mini
from sar_train.clip.mini.stem import STAGES
from sar_train.data.dataset import DataOptions
from sar_train.data.opening import open_dataset
from sar_train.data.views import load


@pytest.fixture(scope="module")
def student() -> Any:
    model = mini.create(mini.VIT_NAME)
    mini.load_weights(model, mini.VIT_NAME)
    return model.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def teacher() -> backbone.Backbone:
    return backbone.load(mini.NAME)


def pixels(paths: list[Path], teacher: backbone.Backbone) -> torch.Tensor:
    spec = teacher.preprocess
    return torch.from_numpy(np.stack([to_input(load(path, spec), spec) for path in paths]))


def test_the_stem_is_the_first_stages_of_sar_mini_to_the_bit(student: Any, teacher: Any, tmp_path: Path) -> None:
    photos = pixels([write_photo(tmp_path / f"{i}.png", i, (300, 260)) for i in range(2)], teacher)
    trunk = teacher.model.visual.trunk
    expected = trunk.blocks[:STAGES](trunk.bn1(trunk.conv_stem(photos)))
    assert torch.equal(student.visual.conv1.maps(photos), expected)
    assert student.visual.conv1(photos).shape == (2, 256, 8, 8)


def test_the_text_side_is_that_of_sar_mini(student: Any, teacher: Any) -> None:
    ours, theirs = student.state_dict(), teacher.model.state_dict()
    text = {name for name in ours if not name.startswith("visual.")}
    assert text == {name for name in theirs if not name.startswith("visual.")}
    assert all(torch.equal(ours[name], theirs[name]) for name in text)
    names = open_clip.get_tokenizer(mini.VIT_NAME)(["a photo of a cat.", "tea pot"])
    assert torch.equal(student.encode_text(names), teacher.model.encode_text(names))


def test_the_file_holds_what_was_learned_and_no_more() -> None:
    stored = load_file(mini.VIT_WEIGHTS)
    assert all(name.startswith("visual.") and tensor.dtype == torch.float16 for name, tensor in stored.items())
    assert [name for name in stored if name.startswith("visual.conv1.")] == ["visual.conv1.patches.weight"]
    assert mini.VIT_WEIGHTS.stat().st_size < 7e6


@needs_shared
def test_it_sees_real_photos_nearly_as_its_teacher(student: Any, teacher: Any) -> None:
    """Photos that the distillation did not use: 0.69 as shipped, about 0 with random weights."""
    caltech = open_dataset("caltech101", DataOptions(SHARED))
    photos = pixels([caltech.root / photo.path for photo in caltech.photos("test")[::250]], teacher)
    assert len(photos) == 10
    cosines = cosine_similarity(student.encode_image(photos), teacher.encode_images(photos))
    assert float(cosines.mean()) > 0.6
