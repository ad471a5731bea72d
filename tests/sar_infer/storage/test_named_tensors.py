from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sar_infer.errors import BundleError, SchemaError
from sar_infer.storage.named_tensors import FileKind, packed, unpacked

KIND = FileKind("test", 1, {"a": "F32", "b": "F64"})
TENSORS = {"b": np.array(0.1), "a": np.arange(6, dtype=np.float32).reshape(2, 3).T}


def test_round_trip(tmp_path: Path) -> None:
    KIND.save(tmp_path / "t", ("x", "é"), TENSORS, "e")
    names, stored, encoder = KIND.load(tmp_path / "t", "e")
    assert (names, encoder, stored.keys()) == (("x", "é"), "e", TENSORS.keys())
    assert (stored["b"].shape, float(stored["b"])) == ((), 0.1)
    np.testing.assert_array_equal(stored["a"], TENSORS["a"])  # transposed, and stored as it reads


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for content in (None, b"", b"text\n" * 9):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BundleError, match=f"^{path}|No such file"):
            KIND.load(path, "e")
    KIND.save(path, ("x",), TENSORS, "e")
    for kind, error, message in (
        (FileKind("other", 1, KIND.tensors), BundleError, "format 'test', expected 'other'"),
        (FileKind("test", 2, KIND.tensors), SchemaError, "version '1', expected 2"),
        (FileKind("test", 1, {"a": "F32"}), BundleError, "expected tensors"),
        (FileKind("test", 1, {**KIND.tensors, "c": "I64"}), BundleError, "expected tensors"),
    ):
        with pytest.raises(error, match=message):
            kind.load(path, "e")
    with pytest.raises(BundleError, match="another encoder: e, expected f"):
        KIND.load(path, "f")


@pytest.mark.parametrize("offsets", [[0, 3, 6], [1, 3, 5], [0, 4, 3, 5], [], [0, 4, 5]])
def test_offsets_that_do_not_fit(offsets: list[int]) -> None:
    data, sound = packed(("cat", "é"))
    assert unpacked(data, sound) == ("cat", "é")
    with pytest.raises(ValueError, match="name offsets"):
        unpacked(data, np.array(offsets, np.int64))
