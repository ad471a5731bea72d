"""Errors of writing say what to do; that writing is atomic is tested with ``sar_infer.storage``."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.disk import fill_disk
from support.folders import listing

from sar_train.data.files import write_atomic
from sar_train.errors import DataError


def test_folders_are_made_and_failures_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a" / "file", b"old")
    for path in (tmp_path / "a", tmp_path / "a" / "file" / "x"):
        with pytest.raises(DataError, match=f"{path}: cannot be written"):
            write_atomic(path, b"content")
    fill_disk(monkeypatch)
    with pytest.raises(DataError, match="No space left on device.*; free space"):
        write_atomic(tmp_path / "a" / "file", b"new")
    assert (tmp_path / "a" / "file").read_bytes() == b"old"
    assert listing(tmp_path / "a") == ["file"]
