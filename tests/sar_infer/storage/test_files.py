from __future__ import annotations

import contextlib
import errno
import os
import stat
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

needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="no locks there")


# -------------------------------------------------------------------------------------------------------------- writing
def test_pieces_are_written_end_to_end_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, [b"one", memoryview(b"two")])

    def pieces():
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, pieces())
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and links")
def test_a_link_stays_one_and_the_mode_stays(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o604)
    link.symlink_to(real)
    write_atomically(link, [b"new"])
    assert (link.is_symlink(), real.read_bytes(), real.stat().st_mode & 0o777) == (True, b"new", 0o604)


@pytest.mark.parametrize("failure", [0, errno.EINVAL, errno.EIO])
def test_content_is_on_disk_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    """A file system that cannot sync folders will do; one that fails to is an error."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        events.append("folder" if is_folder else "file")
        if is_folder and failure:
            raise OSError(failure, os.strerror(failure))
        fsync(handle)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("rename"), replace(self, target))[1])
    refused = pytest.raises(OSError, match="Input/output") if failure == errno.EIO else contextlib.nullcontext()
    with refused:
        write_atomically(tmp_path / "file", [b"content"])
    assert events == ["file", "rename", "folder"]


# ---------------------------------------------------------------------------------------------------------------- locks
def test_a_path_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), locked(tmp_path / "other"), pytest.raises(BlockingIOError), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


@needs_locks
def test_its_holder_removes_a_lock_and_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "run"
    with locked(path):
        assert listing(path.parent) == [".run.lock"]
    assert listing(tmp_path) == []


@needs_locks
def test_a_name_without_room_for_a_lock_has_one_of_another_name(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 252)
    with owned(path), pytest.raises(WriteError, match="another process"), owned(path):
        pass
    assert listing(tmp_path) == []


def test_an_owner_clears_what_a_cut_off_write_left(tmp_path: Path) -> None:
    others = {".bank.0a1b2c3", ".other.0a1b2c3d", "bank.0a1b2c3d", ".bankx0a1b2c3d"}
    for name in (".bank.0a1b2c3d", *others):
        (tmp_path / name).touch()
    with owned(tmp_path / "bank"):
        assert (tmp_path / ".bank.lock").exists()
    assert {path.name for path in tmp_path.iterdir()} == others


@needs_locks
def test_an_owner_is_one_for_processes_with_other_temporary_folders(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sar_infer.storage.files import owned\n"
        "with owned(Path(sys.argv[1])): pass"
    )
    (tmp_path / "link").symlink_to(tmp_path / "bank")
    with owned(tmp_path / "bank"):
        command = [sys.executable, "-c", code, tmp_path / "link"]
        done = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert "another process is changing it" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"link"}


@needs_locks
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


@needs_locks
def test_a_lock_of_another_user_keeps_out_whoever_may_only_read_it(here: Path) -> None:
    here.chmod(0o755)
    with locked(Path("run")):
        Path(".run.lock").chmod(0o444)
        with unprivileged(), pytest.raises(BlockingIOError), locked(Path("run")):
            pass
    with locked(Path("run")):
        assert listing(here) == [".run.lock"]
    assert listing(here) == []


# ---------------------------------------------------------------------------------------------------- where none can be
@needs_locks
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_lock_whose_name_something_else_has_is_refused(tmp_path: Path, kind: str) -> None:
    lock, victim = tmp_path / ".run.lock", tmp_path / "victim"
    victim.write_text("precious")
    make = {"link": lambda: lock.symlink_to(victim), "folder": lock.mkdir, "pipe": lambda: os.mkfifo(lock)}
    make[kind]()
    before = listing(tmp_path)
    for take in (locked, owned):
        with pytest.raises(WriteError, match=r"\.run\.lock"), take(tmp_path / "run"):
            pass
    assert (listing(tmp_path), victim.read_text()) == (before, "precious")


@pytest.mark.skipif(sys.platform != "linux", reason="no such folder there")
@pytest.mark.parametrize("take", [locked, owned])
def test_where_no_folder_can_be_made_is_said(here: Path, take: Callable[..., AbstractContextManager[object]]) -> None:
    Path("file").write_text("thesis")
    for path, message in (
        (Path("/proc/none/run"), "^/proc/none: "),
        (here / "file" / "bank", "cannot be made: a file is in its way$"),
        (here / "file" / "deep" / "bank", "cannot be made: a file is in its way$"),
    ):
        with pytest.raises(WriteError, match=message), take(path):
            pass
    assert Path("file").read_text() == "thesis"


@needs_locks
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


@needs_locks
def test_where_nothing_can_be_written_nobody_is_kept_out(here: Path) -> None:
    here.chmod(0o555)
    try:
        with unprivileged(), locked(Path("run")), locked(Path("run")):
            pass
    finally:
        here.chmod(0o755)
