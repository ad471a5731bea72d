"""Feature sets, the feature file, and features as training reads them."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from support.examples import examples
from support.features import altered, feature_set, rows
from support.tiny import tiny_backbone
from torch import Tensor

from sar_train.data.dataset import SPLITS
from sar_train.data.feature_file import StoredFeatures, load_features, save_features
from sar_train.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_features(feature_set(), tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def parts(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118


def test_round_trip(path: Path) -> None:
    written, read = feature_set(), load_features(path)
    for name in (field.name for field in fields(written) if field.name != "rows"):
        assert getattr(read, name) == getattr(written, name)
    for split in SPLITS:
        rows = read.plain(split)
        assert torch.equal(read.labels(split), written.labels(split))
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows, written.plain(split), atol=1e-3, rtol=0)
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))


def test_stored_as_documented(path: Path) -> None:
    tensors, metadata = parts(path)
    assert tensors["train.features"].dtype == torch.float16
    assert tensors["train.labels"].dtype == torch.int32
    assert metadata["format"] == "sar-features"
    assert json.loads(metadata["class_names"]) == ["ant", "bee", "sea_or lake"]
    assert json.loads(metadata["preprocess"])["size"] == 32
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_empty_validation(tmp_path: Path) -> None:
    whole = feature_set()
    dataset = replace(whole.dataset, splits={split: whole.dataset.photos(split) for split in ("train", "test")})
    rows = {split: whole.rows[split] for split in ("train", "test")}
    save_features(replace(whole, dataset=dataset, rows=rows), tmp_path / "x.safetensors")
    read = load_features(tmp_path / "x.safetensors")
    assert (read.plain("val").shape, len(read.labels("val"))) == ((0, 32), 0)


def test_not_a_feature_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such"):
        load_features(tmp_path)
    for content in (b"", b"\0" * 100, b"\x89PNG\r\n", struct.pack("<Q", 10**9) + b"{}"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DataError, match="safetensors"):
            load_features(tmp_path / "x")
    save_file({"a": torch.zeros(1)}, tmp_path / "y")
    with pytest.raises(DataError, match="None"):
        load_features(tmp_path / "y")


def test_truncated(path: Path) -> None:
    content = path.read_bytes()
    for size in (4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="truncated"):
            load_features(path)


@pytest.mark.parametrize(
    ("key", "value", "fact"),
    [
        ("schema_version", "2", "schema_version 1, got '2'"),
        ("schema_version", None, "schema_version 1, got None"),
        ("format", "other", "'other'"),
        ("class_names", None, "'class_names'"),
        ("class_names", "[", "JSON"),
        ("class_names", '"ant"', "class_names: "),
        ("class_names", "[1, 2, 3]", "class_names: "),
        ("class_names", "[]", "class names"),
        ("class_names", '["ant"]', "labels 0 to 0"),
        ("template", "no place", "'no place'"),
        ("preprocess", "[]", "metadata"),
        ("preprocess", '{"size": 32}', "'mean'"),
        ("preprocess", '{"size": 32, "mean": [1], "std": 3}', "metadata"),
        ("provenance", "[1]", "provenance: "),
        ("published_split", "1", "published_split: "),
        ("dataset", None, "'dataset'"),
    ],
)
def test_damaged_metadata(path: Path, key: str, value: str | None, fact: str) -> None:
    tensors, metadata = parts(path)
    metadata = {k: v for k, v in metadata.items() if k != key} | ({} if value is None else {key: value})
    save_file(tensors, path, metadata)
    with pytest.raises(DataError, match=re.escape(fact)) as caught:
        load_features(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tensor", "fact"),
    [
        ("val.labels", None, "unknown: val.labels"),
        ("extra", torch.zeros(1), "unknown: extra"),
        ("train.labels", torch.zeros(30), "torch.float32"),
        ("train.labels", torch.zeros(30, 1, dtype=torch.int32), "(30, 1)"),
        ("train.labels", torch.zeros(29, dtype=torch.int32), "(29, 32)"),
        ("train.labels", torch.full((30,), 3, dtype=torch.int64), "3 to 3"),
        ("train.features", torch.zeros(30, 32, dtype=torch.int8), "torch.int8"),
        ("train.features", torch.zeros(30, 32, 1), "(30, 32, 1)"),
        ("train.features", torch.zeros(30, 32), "length 0"),
        ("train.features", torch.full((30, 32), torch.inf), "length nan"),
        ("test.features", torch.ones(15, 31), "(15, 31)"),
        ("test.features", torch.ones(15, 0), "(15, 0)"),
    ],
)
def test_damaged_tensors(path: Path, name: str, tensor: Tensor | None, fact: str) -> None:
    tensors, metadata = parts(path)
    tensors.pop(name, None)
    save_file(tensors | ({} if tensor is None else {name: tensor}), path, metadata)
    with pytest.raises(DataError, match=re.escape(fact)):
        load_features(path)


@given(place=st.integers(0, 3000), value=st.integers(0, 255))
@settings(max_examples=examples(150))
def test_one_changed_byte_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, place: int, value: int) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    save_features(feature_set(), path)
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    try:
        load_features(path)
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"class_names": ()}, "class names"),
        ({"class_names": ("a", "b")}, "train: .*0 to 1"),
        ({"template": "a photo"}, "'a photo'"),
        ({"rows": {"train": rows(0)}}, "training rows"),
        ({"rows": {"test": rows(6, size=16)}}, r"test: .*\(6, 16\)"),
        ({"rows": {"val": (rows(6)[0], rows(5)[1])}}, r"val: .*\(5, 32\)"),
        ({"rows": {"val": (rows(3)[0], torch.tensor([0, 1, -1]))}}, "val: .*-1 to 1"),
        ({"rows": {"test": (rows(3)[0] * 2, rows(3)[1])}}, "test: .*length 2"),
        ({"rows": {"test": (rows(3)[0] * float("nan"), rows(3)[1])}}, "test: .*length nan"),
    ],
)
def test_what_cannot_be_built(change: dict[str, Any], fact: str) -> None:
    with pytest.raises(DataError, match=fact):
        altered(feature_set(), **change)


def test_of_another_backbone() -> None:
    backbone, other = tiny_backbone(), tiny_backbone(seed=1)
    features = feature_set()
    features.require(backbone)
    with pytest.raises(DataError) as caught:
        features.require(other)
    assert backbone.weights_digest in str(caught.value)
    assert other.weights_digest in str(caught.value)
    with pytest.raises(DataError, match="fill=7"):
        replace(features, preprocess=replace(features.preprocess, fill=7)).require(backbone)


def test_reads_rows_in_the_order_asked_for() -> None:
    features: StoredFeatures = feature_set()
    rows = features.rows["train"]
    assert features.views("train").shape == (30, 1, 32)
    for chosen in ([4, 2, 2], (4, 2, 2), torch.tensor([4, 2, 2])):
        assert torch.equal(features.views("train", chosen)[:, 0], rows[[4, 2, 2]])
        assert torch.equal(features.plain("train", chosen), rows[[4, 2, 2]])
    assert features.views("val", []).shape == (0, 1, 32)
