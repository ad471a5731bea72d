"""The recipe of sar-mini-vit: which photos it takes, what it teaches, and that it repeats to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file
from support.photos import write_folder, write_photo
from torch.nn.functional import cosine_similarity, normalize

from recipes import photos, vision_tower
from recipes.__main__ import main
from sar_train.clip import backbone, mini
from sar_train.clip.mini import storage
from sar_train.clip.mini.stem import STAGES
from sar_train.errors import DataError

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = replace(vision_tower.Recipe(), batch=8, warmup=2)


@pytest.fixture(scope="module")
def original() -> backbone.Backbone:
    return backbone.load(mini.NAME)


@pytest.fixture
def student() -> Any:
    torch.manual_seed(0)
    model = mini.create(mini.VIT_NAME)
    storage.load_shared(model, mini.WEIGHTS)
    return model


def teacher_of(original: backbone.Backbone) -> vision_tower.Teacher:
    names = normalize(torch.randn(5, 512, generator=torch.Generator().manual_seed(0)), dim=-1)
    return vision_tower.Teacher(original.model, STAGES, names)


def test_test_photos_of_published_splits_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none"):
        photos.usable(tmp_path)
    write_folder(tmp_path / "plain", {"cat": 1, "dog": 2})
    paths = [f"cat/{i}.png" for i in range(4)]
    for path in paths:
        write_photo(tmp_path / "caltech-101" / "101_ObjectCategories" / path)
    rows = [[path, 0, "cat"] for path in [*paths, "cat/absent.png"]]
    split = {"train": [rows[0], rows[4]], "val": [rows[1]], "test": [rows[2]]}
    (tmp_path / "caltech-101" / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    usable = [path.relative_to(tmp_path).as_posix() for path in photos.usable(tmp_path)]
    assert [path for path in usable if path.startswith("caltech")] == [
        "caltech-101/101_ObjectCategories/cat/0.png",
        "caltech-101/101_ObjectCategories/cat/1.png",
    ]
    assert len(usable) == 5


def test_the_teacher_is_sar_mini(original: backbone.Backbone, student: Any) -> None:
    """Rows of places, averaged, are the embedding of the whole tower; bfloat16 costs a little."""
    pixels = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        local = teacher_of(original)(student.visual.conv1.maps(pixels))
    assert local.shape == (2, 64, 512)
    assert float(cosine_similarity(local.mean(1), original.encode_images(pixels)).min()) > 0.999


def test_some_steps_bring_it_nearer_and_leave_the_stem_alone(original: backbone.Backbone, student: Any) -> None:
    maps = torch.randn(8, 112, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    losses: list[float] = []
    recipe = replace(RECIPE, steps=12, mixed=0.0)
    vision_tower.train(student, teacher_of(original), maps, recipe, lambda step, loss: losses.append(loss))
    assert losses[-1] < 0.8 * losses[0]
    same = {name for name, tensor in student.state_dict().items() if torch.equal(tensor, before[name])}
    assert {name for name in before if not name.startswith("visual.")} < same
    assert {name for name in before if name.startswith(("visual.conv1.b", "visual.conv1.conv_stem"))} < same
    assert not {"visual.conv1.patches.weight", "visual.class_embedding", "visual.proj"} & same


@pytest.mark.nightly
def test_the_command_repeats_to_the_bit(tmp_path: Path) -> None:
    """Once from photos alone, once with a file of maps."""
    root, out = tmp_path / "photos", [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    write_folder(root, {"cat": 2, "dog": 2})
    for file, options in zip(out, ([], ["--maps", str(tmp_path / "maps.safetensors")]), strict=True):
        arguments = ["build-vit", str(root), "--steps", "2", "--out", str(file), *options]
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert "photo 4/4" in result.stderr
        assert "step 2/2" in result.stderr
    first, second = (load_file(file) for file in out)
    assert all(torch.equal(first[name], second[name]) and first[name].isfinite().all() for name in first)
    assert first.keys() == second.keys() == load_file(mini.VIT_WEIGHTS).keys()
    with safe_open(out[0], "pt") as stored:
        assert json.loads(stored.metadata()["recipe"])["steps"] == 2
