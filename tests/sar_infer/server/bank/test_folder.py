from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sar_infer.bank import ClassBank
from sar_infer.errors import BankError, InputError
from sar_infer.server.bank.folder import BANK_FILE, StateFolder

BANK = ClassBank(("a", "b"), np.eye(2, dtype=np.float32), "e" * 64)


def test_a_folder_is_made_and_begins_empty(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "new" / "state")
    assert folder.load() is None
    folder.save(BANK)
    loaded = folder.load()
    assert loaded is not None
    assert loaded.content_digest == BANK.content_digest
    folder.close()


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ours = [".bank.safetensors.0123abcd", ".bank-0123456789abcdef.safetensors.0123abcd"]
    others = [BANK_FILE, ".bank.safetensors", ".bank.safetensors.0123abcz", ".other.0123abcd", "bank-0.safetensors"]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    StateFolder(tmp_path).close()
    assert {entry.name for entry in tmp_path.iterdir()} == {*others, "lock"}


def test_a_second_owner_waits_until_the_first_lets_go(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with pytest.raises(InputError, match=rf"{tmp_path}: another server \(process {os.getpid()}\)"):
        StateFolder(tmp_path)
    folder.close()
    folder.close()
    StateFolder(tmp_path).close()


def test_a_process_of_its_own_is_kept_out_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from sar_infer.server.bank.folder import StateFolder; "
        "folder = StateFolder(Path(sys.argv[1])); print('mine', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[4]
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=root, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"mine\n"
        try:
            with pytest.raises(InputError, match=rf"another server \(process {owner.pid}\)"):
                StateFolder(tmp_path)
        finally:
            owner.kill()
    StateFolder(tmp_path).close()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot keep state there \(File exists\)"):
        StateFolder(tmp_path / "file")
    (tmp_path / "state" / "lock").mkdir(parents=True)
    with pytest.raises(InputError, match=r"state: cannot keep state there \(Is a directory\)"):
        StateFolder(tmp_path / "state")


def test_a_folder_that_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InputError, match="No locks available"):
        StateFolder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_without_locks_in_the_system_it_works_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    folder = StateFolder(tmp_path)
    folder.save(BANK)
    folder.close()


def test_a_link_that_leads_nowhere_is_not_an_empty_folder(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.file.symlink_to(tmp_path / "gone")
    with pytest.raises(BankError, match="no such bank file; put a copy of it back"):
        folder.load()
    folder.close()


def test_an_old_bank_is_kept_under_its_digest(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.keep(BANK)
    folder.keep(BANK)
    assert ClassBank.load(tmp_path / f"bank-{BANK.content_digest[:16]}.safetensors").names == BANK.names
    folder.close()
