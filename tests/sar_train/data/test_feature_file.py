"""The feature file: what is stored comes back, and what is damaged is refused in one line."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.features import feature_set
from support.folders import listing
from support.tiny import tiny_backbone
from torch import Tensor

from sar_train.data.dataset import SPLITS, Split
from sar_train.data.feature_file import StoredFeatures, load_features, save_features
from sar_train.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_features(feature_set(), tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def content(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
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
    without = written.dataset.splits | {"val": ()}
    save_features(replace(written, dataset=replace(written.dataset, splits=without), rows=without_val(written)), path)
    assert load_features(path).plain("val").shape == (0, 32)


def without_val(features: StoredFeatures) -> dict[Split, Tensor]:
    return {split: features.rows[split] for split in ("train", "test")}


def test_stored_as_documented(path: Path) -> None:
    tensors, metadata = content(path)
    assert tensors["train.features"].dtype == torch.float16
    assert tensors["train.labels"].dtype == torch.int32
    assert metadata["format"] == "sar-features"
    assert json.loads(metadata["class_names"]) == ["ant", "bee", "sea_or lake"]
    assert json.loads(metadata["preprocess"])["size"] == 32
    assert listing(path.parent) == [path.name]


def test_not_a_feature_file(path: Path) -> None:
    with pytest.raises(DataError, match="no such"):
        load_features(path.parent)
    whole = path.read_bytes()
    pieces = [whole[:size] for size in (0, 4, 100, len(whole) // 2, len(whole) - 1)]
    for damaged in (*pieces, b"\0" * 100, b"\x89PNG\r\n", struct.pack("<Q", 10**9) + b"{}"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="safetensors file, or one that is truncated"):
            load_features(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="None"):
        load_features(path)


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("schema_version", "2", "schema_version '1'), got 'sar-features', schema_version '2'"),
        ("format", "other", "'other'"),
        ("class_names", None, "'class_names'"),
        ("class_names", "[", "JSON"),
        ("class_names", '"ant"', "class_names: "),
        ("class_names", '["ant"]', "labels 0 to 0"),
        ("template", "no place", "'no place'"),
        ("preprocess", '{"size": 32}', "'mean'"),
        ("preprocess", '{"size": 32, "mean": [1], "std": 3}', "metadata"),
        ("provenance", "[1]", "metadata"),
        ("dataset", None, "'dataset'"),
        ("val.labels", None, "val.labels"),
        ("train.labels", torch.zeros(30), "torch.float32"),
        ("train.labels", torch.zeros(30, 1, dtype=torch.int32), "(30, 1)"),
        ("train.labels", torch.zeros(29, dtype=torch.int32), "(29, 32)"),
        ("train.labels", torch.full((30,), 3, dtype=torch.int64), "3 to 3"),
        ("train.labels", torch.full((30,), -1, dtype=torch.int64), "-1 to -1"),
        ("train.features", torch.zeros(30, 32, 1), "(30, 32, 1)"),
        ("train.features", torch.tensor(1.0), "metadata"),
        ("train.features", torch.zeros(30, 32), "length 0"),
        ("train.features", torch.full((30, 32), torch.inf), "length nan"),
        ("test.features", torch.ones(15, 31), "(15, 31)"),
    ],
)
def test_damaged_content(path: Path, name: str, value: str | Tensor | None, fact: str) -> None:
    tensors, metadata = content(path)
    changed: dict[str, Any] = {**tensors, **metadata, name: value}
    save_file(
        {key: changed[key] for key in tensors if changed[key] is not None},
        path,
        {key: changed[key] for key in metadata if changed[key] is not None},
    )
    with pytest.raises(DataError, match=re.escape(fact)) as caught:
        load_features(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_of_another_backbone() -> None:
    backbone, other = tiny_backbone(), tiny_backbone(seed=1)
    features = feature_set()
    features.require(backbone)
    with pytest.raises(DataError, match=f"{backbone.weights_digest}.*{other.weights_digest}"):
        features.require(other)
    with pytest.raises(DataError, match="fill=7"):
        replace(features, preprocess=replace(features.preprocess, fill=7)).require(backbone)
