from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from sar_infer.errors import InputError
from sar_infer.storage import tensor_file
from sar_infer.storage.named_tensors import FileKind, digest_of, packed, unpacked

KIND = FileKind("test", "thing", 1, {"a": "F32", "b": "F64"}, InputError, "try again", ("more",))
TENSORS = {"b": np.array(0.1), "a": np.arange(6, dtype=np.float32).reshape(2, 3).T}


def test_round_trip(tmp_path: Path) -> None:
    KIND.save(tmp_path / "t", ("x", "é"), TENSORS, "e", {"more": "text"})
    stored = KIND.load(tmp_path / "t", "e")
    assert stored.names == ("x", "é")
    assert set(stored.tensors) == {"a", "b"}
    assert (stored.tensors["b"].shape, float(stored.tensors["b"])) == ((), 0.1)
    np.testing.assert_array_equal(stored.tensors["a"], TENSORS["a"])  # transposed, and stored as it reads
    assert (stored.metadata["more"], stored.metadata["format"]) == ("text", "test")


def test_errors_speak_of_the_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t"
    with pytest.raises(InputError, match="no such thing file"):
        KIND.load(path, "e")
    KIND.save(path, ("x",), TENSORS, "e")
    with pytest.raises(InputError, match="metadata has no 'more'"):
        KIND.load(path, "e")
    KIND.save(path, ("x",), TENSORS, "e", {"more": ""})
    with pytest.raises(InputError, match="try again .expected f, the thing has e"):
        KIND.load(path, "f")
    before = path.read_bytes()
    monkeypatch.setattr(tensor_file, "LONGEST_HEADER", 100)
    with pytest.raises(InputError, match="cannot be written .header too large"):
        KIND.save(path, ("x",), TENSORS, "e", {"more": "x" * 100})
    assert path.read_bytes() == before


def test_the_digest_takes_names_offsets_and_tensors_in_order() -> None:
    offsets, a = np.array([0, 1, 3], dtype="<i8").tobytes(), TENSORS["a"]
    expected = hashlib.sha256("xé".encode() + offsets + a.tobytes() + TENSORS["b"].tobytes()).hexdigest()
    assert KIND.content_digest(("x", "é"), TENSORS) == expected
    assert digest_of(a.astype(">f4")) == digest_of(a)


@pytest.mark.parametrize(
    ("names", "named"), [(("a", " "), "class 1"), (("a", "b", "a"), "'a'"), (("a", "red\x1b[2J"), r"'red\\x1b\[2J'")]
)
def test_names_that_are_refused(names: tuple[str, ...], named: str) -> None:
    with pytest.raises(InputError, match=named):
        KIND.check_names(names)
    KIND.check_names(("a", "A"))


@pytest.mark.parametrize("offsets", [[0, 3, 6], [1, 3, 5], [0, 4, 3, 5], [], [0, 4, 5]])
def test_offsets_that_do_not_fit(offsets: list[int]) -> None:
    data, sound = packed(("cat", "é"))
    assert unpacked(data, sound) == ("cat", "é")
    with pytest.raises(ValueError, match="name offsets"):
        unpacked(data, np.array(offsets, np.int64))
