"""What the kinds share; the tests of bank and head go through every refusal."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from sar_infer.errors import InputError
from sar_infer.storage.named_tensors import FileKind, digest_of, read_only

KIND = FileKind("test", "thing", 1, {"a": "F32", "b": "F64"}, InputError, "try again", ("more",))


def tensors() -> dict[str, np.ndarray]:
    return {"b": np.array(0.1), "a": np.arange(6, dtype=np.float32).reshape(2, 3)}


def test_round_trip(tmp_path: Path) -> None:
    KIND.save(tmp_path / "t", ("x", "é"), tensors(), "e", {"more": "text"})
    stored = KIND.load(tmp_path / "t", "e")
    assert stored.names == ("x", "é")
    assert set(stored.tensors) == {"a", "b"}
    assert (stored.tensors["b"].shape, float(stored.tensors["b"])) == ((), 0.1)
    np.testing.assert_array_equal(stored.tensors["a"], tensors()["a"])
    assert (stored.metadata["more"], stored.metadata["format"]) == ("text", "test")


def test_a_transposed_tensor_is_stored_as_it_reads(tmp_path: Path) -> None:
    KIND.save(tmp_path / "t", ("x",), {**tensors(), "a": tensors()["a"].T}, "e", {"more": ""})
    np.testing.assert_array_equal(KIND.load(tmp_path / "t", None).tensors["a"], tensors()["a"].T)


def test_a_file_without_the_keys_of_its_kind(tmp_path: Path) -> None:
    KIND.save(tmp_path / "t", ("x",), tensors(), "e")
    with pytest.raises(InputError, match="more"):
        KIND.load(tmp_path / "t", "e")


def test_errors_speak_of_the_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="thing file"):
        KIND.load(tmp_path / "t", "e")
    KIND.save(tmp_path / "t", ("x",), tensors(), "e", {"more": ""})
    with pytest.raises(InputError, match="expected f, .* e"):
        KIND.load(tmp_path / "t", "f")


def test_the_digest_takes_names_offsets_and_tensors_in_order() -> None:
    offsets, content = np.array([0, 1, 3], dtype="<i8").tobytes(), tensors()
    expected = hashlib.sha256("xé".encode() + offsets + content["a"].tobytes() + content["b"].tobytes()).hexdigest()
    assert KIND.content_digest(("x", "é"), content) == expected
    assert digest_of(content["a"].astype(">f4")) == digest_of(content["a"])


@pytest.mark.parametrize(
    ("names", "named"), [(("a", " "), "class 1"), (("a", "b", "a"), "'a'"), (("a", "red\x1b[2J"), r"'red\\x1b\[2J'")]
)
def test_names_that_are_refused(names: tuple[str, ...], named: str) -> None:
    with pytest.raises(InputError, match=named):
        KIND.check_names(names)
    KIND.check_names(("a", "A"))


def test_a_locked_view_leaves_the_original_open() -> None:
    array = np.zeros(2, dtype=np.float32)
    with pytest.raises(ValueError, match="read-only"):
        read_only(array)[0] = 1
    array[0] = 1


def synced(monkeypatch: pytest.MonkeyPatch, folder_fails: int = 0) -> list[str]:
    """What is made durable or renamed, in order; the folder's sync may fail."""
    seen: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted(handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        seen.append("folder" if is_folder else "file")
        if is_folder and folder_fails:
            raise OSError(folder_fails, os.strerror(folder_fails))
        fsync(handle)

    monkeypatch.setattr("os.fsync", noted)
    monkeypatch.setattr(Path, "replace", lambda self, target: (seen.append("rename"), replace(self, target))[1])
    return seen


def test_the_content_is_on_disk_before_the_name_and_the_name_before_it_returns(tmp_path: Path, monkeypatch) -> None:
    seen = synced(monkeypatch)
    KIND.save(tmp_path / "t", ("x",), tensors(), "e", {"more": ""})
    assert seen == ["file", "rename", "folder"]


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = synced(monkeypatch, errno.EINVAL)
    KIND.save(tmp_path / "t", ("x",), tensors(), "e", {"more": ""})
    assert seen[-1] == "folder"


def test_a_folder_that_fails_to_sync_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        KIND.save(tmp_path / "t", ("x",), tensors(), "e", {"more": ""})


def test_a_header_that_no_reader_takes_is_not_written(tmp_path: Path) -> None:
    KIND.save(tmp_path / "t", ("x",), tensors(), "e", {"more": ""})
    before = (tmp_path / "t").read_bytes()
    with pytest.raises(InputError, match="too large"):
        KIND.save(tmp_path / "t", ("x",), tensors(), "e", {"more": "x" * 10**8})
    assert (tmp_path / "t").read_bytes() == before
