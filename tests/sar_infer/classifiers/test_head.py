from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save
from support.bundles import ENCODER_DIGEST, example_head

from sar_infer.bank import ClassBank
from sar_infer.classifiers.head import ClassHead
from sar_infer.errors import BundleError, SchemaError
from sar_infer.storage.named_tensors import digest_of

NAMES = ("cat", "日本 spitz", "é")
TENSORS = ("names", "offsets", "weight", "bias", "mix")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    example_head(NAMES, mix=0.7).save(tmp_path / "h.safetensors")
    return tmp_path / "h.safetensors"


def contents(path: Path) -> tuple[dict, dict]:
    with safe_open(path, "np") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def rewritten(path: Path, **changes) -> Path:
    """The file with metadata or tensors replaced (None removes one), under a digest that fits."""
    metadata, tensors = contents(path)
    if all(isinstance(changes.get(key, np.zeros(1)), np.ndarray) for key in TENSORS):
        metadata["content_digest"] = digest_of(*({**tensors, **changes}[key] for key in TENSORS))
    both = {**metadata, **tensors, **changes}
    path.write_bytes(
        save(
            {key: value for key, value in both.items() if isinstance(value, np.ndarray)},
            {key: value for key, value in both.items() if isinstance(value, str)},
        )
    )
    return path


def test_logits_by_hand() -> None:
    weight = np.array([[1, 2], [-3, 0.5], [0, 4]], dtype=np.float32)
    head = ClassHead(("a", "b", "c"), weight, np.array([10, 20, 30], dtype=np.float32), 0.25, "e")
    features = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    np.testing.assert_allclose(head.logits(features), [[11, 17, 30], [12.2, 18.6, 33.2]], rtol=1e-6)
    text = np.array([[4, 8, 0], [-4, 0, 100]], dtype=np.float32)
    expected = [[3 + 2.75, 6 + 4.25, 7.5], [-3 + 3.05, 4.65, 75 + 8.3]]
    np.testing.assert_allclose(head.combined(text, features), expected, rtol=1e-6)
    assert head.combined(text, features).dtype == head.logits(features).dtype == np.float32
    assert head.logits(features[:0]).shape == (0, 3)
    np.testing.assert_array_equal(dataclasses.replace(head, mix=0).combined(text, features), text)
    np.testing.assert_array_equal(dataclasses.replace(head, mix=1).combined(text, features), head.logits(features))


def test_another_order_moves_the_columns_with_their_names() -> None:
    head, features = example_head(NAMES), np.eye(8, dtype=np.float32)
    turned = head.reordered([2, 0, 1])
    assert turned.names == ("é", "cat", "日本 spitz")
    np.testing.assert_array_equal(turned.logits(features), head.logits(features)[:, [2, 0, 1]])
    assert (turned.mix, turned.encoder_digest) == (head.mix, head.encoder_digest)


def test_round_trip(path: Path) -> None:
    loaded, head = ClassHead.load(path, ENCODER_DIGEST), example_head(NAMES, mix=0.7)
    assert (loaded.names, loaded.mix, loaded.encoder_digest) == (NAMES, 0.7, ENCODER_DIGEST)
    np.testing.assert_array_equal(loaded.weight, head.weight)
    np.testing.assert_array_equal(loaded.bias, head.bias)
    assert loaded.weight.dtype == loaded.bias.dtype == np.float32
    for array in (loaded.weight, loaded.bias, head.weight, head.bias):
        assert not array.flags.writeable


def test_the_format_is_as_documented(path: Path) -> None:
    metadata, tensors = contents(path)
    assert set(metadata) == {"format", "schema_version", "min_reader", "encoder_digest", "content_digest"}
    assert (metadata["format"], metadata["schema_version"], metadata["min_reader"]) == ("sar-head", "1", "1")
    assert {key: (value.dtype.name, value.shape) for key, value in tensors.items()} == {
        "weight": ("float32", (3, 8)),
        "bias": ("float32", (3,)),
        "mix": ("float64", ()),
        "names": ("uint8", (17,)),
        "offsets": ("int64", (4,)),
    }
    assert metadata["content_digest"] == digest_of(*(tensors[key] for key in TENSORS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.zeros((2, 8), np.float32)}, r"\(2, 8\)"),
        ({"weight": np.zeros(3, np.float32)}, "weight"),
        ({"weight": np.zeros((3, 8))}, "float64"),
        ({"bias": np.zeros(2, np.float32)}, r"\(2,\)"),
        ({"bias": np.zeros((3, 1), np.float32)}, "bias"),
        ({"bias": np.zeros(3)}, "float64"),
        ({"weight": np.full((3, 8), np.nan, np.float32)}, "cat"),
        ({"bias": np.array([0, np.inf, 0], np.float32)}, "日本 spitz"),
        ({"weight": np.full((3, 8), 3e38, np.float32)}, "cat"),
        ({"names": ("a", "b", "a")}, "'a'"),
        ({"names": ("a", "b", " ")}, "class 2"),
        ({"mix": -0.1}, "mix"),
        ({"mix": 1.5}, "mix"),
        ({"mix": float("nan")}, "mix"),
        (
            {"names": (), "weight": np.zeros((0, 8), np.float32), "bias": np.zeros(0, np.float32)},
            "without classes",
        ),
    ],
)
def test_unsound_content(changes: dict, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        dataclasses.replace(example_head(NAMES), **changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"min_reader": "4"}, SchemaError, "version 4"),
        ({"format": "sar-bank"}, BundleError, "sar-bank"),
        ({"weight": np.zeros((3, 8))}, BundleError, "expected tensors"),
        ({"mix": None}, BundleError, "expected tensors"),
        ({"mix": np.array([0.5])}, BundleError, r"\(1,\)"),
        ({"mix": np.array(2.0)}, BundleError, "2.0"),
        ({"bias": np.zeros(4, np.float32)}, BundleError, "bias"),
        ({"offsets": np.array([0, 4, 15, 17])}, BundleError, "cut a character"),
    ],
)
def test_changed_files(path: Path, changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"h.safetensors: .*{message}"):
        ClassHead.load(rewritten(path, **changes))


def test_every_changed_byte_of_a_tensor_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for position in range(8 + int.from_bytes(data[:8], "little"), len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(BundleError):
            ClassHead.load(path)


def test_another_encoder(path: Path) -> None:
    with pytest.raises(BundleError, match=f"bbbbbbbb, .* {ENCODER_DIGEST[:8]}"):
        ClassHead.load(path, "b" * 64)
    assert ClassHead.load(path).names == NAMES
    ClassBank.of(("a",), np.eye(1, dtype=np.float32), ENCODER_DIGEST).save(path)
    with pytest.raises(BundleError, match="head"):
        ClassHead.load(path)
