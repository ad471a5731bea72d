"""Against the safetensors library, in both directions, and with damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as strategies
from safetensors import safe_open
from safetensors.numpy import load, save

from sar_infer.storage.tensor_file import TensorFile, file_pieces, tensor_bytes

SHAPES = strategies.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = st.sampled_from([np.float32, np.float64, np.int64, np.uint8]).flatmap(
    lambda kind: strategies.arrays(kind, SHAPES)
)
TENSORS = st.dictionaries(st.text(min_size=1, max_size=4).filter(str.isalpha), ARRAYS, max_size=4)
METADATA = st.dictionaries(
    st.text(max_size=5).filter(lambda text: text.isprintable()), st.text(max_size=5).filter(str.isprintable), max_size=3
)


def opened(path: Path, content: bytes) -> tuple[dict, dict]:
    path.write_bytes(content)
    with path.open("rb") as stream:
        file = TensorFile(stream)
        return dict(file.metadata), {name: file.tensor(name) for name in file.entries}


def assert_equal(tensors: dict, expected: dict) -> None:
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(tensors[name], array)


@given(tensors=TENSORS, metadata=METADATA)
def test_both_ways_with_the_library(tmp_path_factory: pytest.TempPathFactory, tensors, metadata) -> None:
    path = tmp_path_factory.getbasetemp() / "t.safetensors"
    ours = b"".join(file_pieces(tensors, metadata))
    assert_equal(load(ours), tensors)
    path.write_bytes(ours)
    with safe_open(path, "np") as file:
        assert (file.metadata() or {}) == metadata
    for content in (ours, save(tensors, metadata or None)):  # of {} the library makes no JSON
        texts, arrays = opened(path, content)
        assert texts == metadata
        assert_equal(arrays, tensors)


def test_bytes_of_any_layout() -> None:
    values = np.arange(6, dtype=np.float32)
    for array in (values.reshape(-1, 3), values.reshape(3, -1).T, np.empty((0, 5)), np.array(7), values.astype(">f4")):
        assert tensor_bytes(array) == array.astype(array.dtype.newbyteorder("<")).tobytes()


def framed(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32", **more) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file, or cut off"),
        (b"\xff" * 100, "not a safetensors file, or cut off"),
        (framed(b"{")[:-1], "not a safetensors file, or cut off"),
        (framed(b"{"), "Expecting"),
        (framed(b"\xff\xff"), "utf-8"),
        (framed([]), "expected an object"),
        (framed({"__metadata__": {"a": 1}}), "object of text"),
        (framed({"a": 5}), "dtype, shape"),
        (framed({"a": entry(dtype=5)}, bytes(8)), "expected a type"),
        (framed({"a": entry(dtype="F99")}, bytes(8)), "unknown type 'F99'"),
        (framed({"a": entry(shape=(2.0,))}, bytes(8)), "expected a type"),
        (framed({"a": entry(shape=(-2,))}, bytes(8)), "expected a type"),
        (framed({"a": entry(offsets=(0, 8, 8))}, bytes(8)), "expected a type"),
        (framed({"a": entry(offsets=(8, 0))}, bytes(8)), "begins"),
        (framed({"a": entry(offsets=(4, 12))}, bytes(12)), "begins"),
        (framed({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "'b' begins"),
        (framed({"a": entry()}, bytes(7)), "tensors end"),
        (framed({"a": entry()}, bytes(9)), "tensors end"),
        (framed({"a": entry(shape=(3,))}, bytes(8)), r"\(3,\)"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "t", content)


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(save({"a": np.zeros(10_000, np.float32)}))
    with path.open("rb") as stream:
        file = TensorFile(stream)
        with path.open("r+b") as other:
            other.truncate(20_000)
        with pytest.raises(ValueError, match="'a'"):
            file.tensor("a")
