from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.folders import listing
from support.users import unprivileged

from sar_infer.errors import WriteError
from sar_infer.storage.files import locked, owned, write_atomically

if sys.platform != "win32":
    import fcntl


def test_a_place_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), locked(tmp_path / "other"), pytest.raises(BlockingIOError), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


def test_a_second_owner_is_told_to_wait(tmp_path: Path) -> None:
    refused = pytest.raises(WriteError, match="another process")
    with owned(tmp_path / "bank"), refused, owned(tmp_path / "bank"):
        pass


def test_an_owner_clears_what_a_cut_off_write_left(tmp_path: Path) -> None:
    for name in (".bank.0a1b2c3d", ".bank.0a1b2c3", ".other.0a1b2c3d", "bank.0a1b2c3d", ".bankx0a1b2c3d"):
        (tmp_path / name).touch()
    with owned(tmp_path / "bank"):
        assert (tmp_path / ".bank.lock").exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".bank.0a1b2c3", ".other.0a1b2c3d", "bank.0a1b2c3d", ".bankx0a1b2c3d"}


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_the_file_that_is_locked_is_the_one_that_is_written_wherever_a_link_points_meanwhile(tmp_path: Path) -> None:
    first, second, link = tmp_path / "first", tmp_path / "second", tmp_path / "link"
    for file in (first, second):
        file.write_text(file.name)
    link.symlink_to(first)
    with owned(link) as file:
        link.unlink()
        link.symlink_to(second)
        write_atomically(file, [b"changed"])
    assert (first.read_text(), second.read_text(), link.readlink()) == ("changed", "second", second)


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
        "import sys; from pathlib import Path; from sar_infer.storage.files import owned\n"
        "with owned(Path(sys.argv[1])): pass"
    )
    (tmp_path / "link").symlink_to(tmp_path / "bank")
    with owned(tmp_path / "bank"):
        for name in ("bank", "link"):
            command = [sys.executable, "-c", code, tmp_path / name]
            done = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True)
            assert "another process is changing it" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"link"}


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_name_without_room_for_a_lock_has_one_of_another_name(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 252)
    with owned(path), pytest.raises(WriteError, match="another process"), owned(path):
        pass
    assert listing(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_lock_is_shared_and_the_last_one_removes_it(tmp_path: Path) -> None:
    place = tmp_path / "new" / "folder" / "run"
    with locked(place, shared=True):
        with locked(place, shared=True), pytest.raises(BlockingIOError), locked(place):
            pass
        with pytest.raises(BlockingIOError), locked(place):
            pass
        assert listing(place.parent) == [".run.lock"]
    assert listing(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_else_has_the_name_of_a_lock_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    lock, victim = tmp_path / ".run.lock", tmp_path / "victim"
    if kind == "folder":
        lock.mkdir()
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(victim)
    if kind == "link":
        victim.write_text("precious")
    before = listing(tmp_path)
    for take in (locked, owned):
        with pytest.raises(WriteError, match=r"\.run\.lock"), take(tmp_path / "run"):
            pass
    assert listing(tmp_path) == before
    assert kind != "link" or victim.read_text() == "precious"


@pytest.mark.skipif(sys.platform != "linux", reason="no such folder there")
@pytest.mark.parametrize("take", [locked, owned])
def test_where_no_folder_can_be_made_is_said(take: Callable[..., AbstractContextManager[object]]) -> None:
    with pytest.raises(WriteError, match="^/proc/none: "), take(Path("/proc/none/run")):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EIO])
def test_where_there_are_no_locks_nobody_is_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    refused = pytest.raises(WriteError, match="Input/output error") if number == errno.EIO else contextlib.nullcontext()
    with refused, locked(tmp_path / "run"), locked(tmp_path / "run"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_where_nothing_can_be_written_nobody_is_kept_out(here: Path) -> None:
    here.chmod(0o555)
    try:
        with unprivileged(), locked(Path("run")), locked(Path("run")):
            pass
    finally:
        here.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
@pytest.mark.parametrize("place", ["file/bank", "file/deep/bank"])
def test_below_a_file_nobody_is_told_to_remove_it(here: Path, place: str) -> None:
    Path("file").write_text("thesis")
    with pytest.raises(WriteError, match="cannot be made: a file is in its way$"), locked(here / place):
        pass
    assert Path("file").read_text() == "thesis"


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_lock_of_another_user_keeps_out_whoever_may_only_read_it(here: Path) -> None:
    here.chmod(0o755)
    with locked(Path("run")):
        Path(".run.lock").chmod(0o444)
        with unprivileged(), pytest.raises(BlockingIOError), locked(Path("run")):
            pass
    with locked(Path("run")):
        assert listing(here) == [".run.lock"]
    assert listing(here) == []


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
