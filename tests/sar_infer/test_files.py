from __future__ import annotations

from pathlib import Path

import pytest

from sar_infer.errors import WriteError
from sar_infer.files import locked, owned, write_atomically


def test_a_place_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), locked(tmp_path / "other"), pytest.raises(BlockingIOError), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


def test_a_second_owner_is_told_to_wait(tmp_path: Path) -> None:
    refused = pytest.raises(WriteError, match="another process is changing it")
    with owned(tmp_path / "bank"), refused, owned(tmp_path / "bank"):
        pass


def test_an_owner_clears_what_a_cut_off_write_left(tmp_path: Path) -> None:
    for name in (".bank.0a1b2c3d", ".bank.0a1b2c3", ".other.0a1b2c3d", "bank.0a1b2c3d", ".bankx0a1b2c3d"):
        (tmp_path / name).touch()
    with owned(tmp_path / "bank"):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {".bank.0a1b2c3", ".other.0a1b2c3d", "bank.0a1b2c3d", ".bankx0a1b2c3d"}


def test_pieces_are_written_end_to_end_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, [b"one", memoryview(b"two")])
    assert path.read_bytes() == b"onetwo"

    def pieces():
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, pieces())
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]
