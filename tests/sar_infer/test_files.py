from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
        assert (tmp_path / ".bank.lock").exists()
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


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_an_owner_is_one_for_processes_with_other_temporary_folders(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sar_infer.files import owned\nwith owned(Path(sys.argv[1])): pass"
    )
    (tmp_path / "link").symlink_to(tmp_path / "bank")
    with owned(tmp_path / "bank"):
        for name in ("bank", "link"):
            command = [sys.executable, "-c", code, tmp_path / name]
            done = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True)
            assert "another process is changing it" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"link"}


def test_without_room_for_a_lock_beside_it_the_old_one_is_taken(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 252)
    with owned(path), pytest.raises(WriteError, match="another process is changing it"), owned(path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_many_owners_take_turns(tmp_path: Path) -> None:
    """A lock that is removed while another waits for it must not let two in."""
    path, inside, entered = tmp_path / "bank", [], []

    def attempt(_: int) -> None:
        with contextlib.suppress(WriteError), owned(path):
            inside.append(1)
            assert len(inside) == 1
            entered.append(1)
            inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(2000)))
    assert len(entered) > 10


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and links")
def test_a_link_stays_one_and_the_mode_is_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o604)
    link.symlink_to(real)
    write_atomically(link, [b"new"])
    assert (link.is_symlink(), real.read_bytes(), real.stat().st_mode & 0o777) == (True, b"new", 0o604)
