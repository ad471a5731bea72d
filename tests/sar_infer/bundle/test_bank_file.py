"""The bank file as processes share it; its rules are those of the bank (tests/sar_infer/bank)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.bundles import name_rows, write_bundle

from sar_infer.bank import ClassBank, add, set_class
from sar_infer.bundle.bank_file import BankFile, check_place
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.errors import BankError, InputError


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "bundle"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "b.safetensors"


def test_changes_of_one_are_in_the_next_look_of_the_other(bundle: Bundle, path: Path) -> None:
    one, other = BankFile(path, bundle), BankFile(path, bundle)
    assert one.look() is bundle.bank
    for number in range(20):  # faster than the clock of a file system may count
        with one.changing() as (file, bank):
            one.save(file, set_class(bank, "red", threshold=number / 100))
        assert other.look().entry("red").threshold == number / 100
    assert other.look() is other.look()
    path.unlink()
    assert other.look().entry("red").threshold == 0.19


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
@pytest.mark.parametrize("linked", [True, False])
def test_a_path_that_becomes_a_link_to_another_bank(bundle: Bundle, tmp_path: Path, *, linked: bool) -> None:
    """The file that is locked is read and written, whatever the path leads to meanwhile."""
    path, mine, other = tmp_path / "b.safetensors", tmp_path / "mine.safetensors", tmp_path / "other.safetensors"
    add(bundle.bank, ["mine"], name_rows(["mine"])).save(mine if linked else path)
    add(bundle.bank, ["other"], name_rows(["other"])).save(other)
    before = other.read_bytes()
    if linked:
        path.symlink_to(mine)
    file = BankFile(path, bundle)
    with file.changing() as (locked, bank):
        (tmp_path / "turned").symlink_to(other)
        (tmp_path / "turned").replace(path)
        file.save(locked, add(bank, ["owl"], name_rows(["owl"])))
    assert ClassBank.load(mine if linked else path, base=bundle.bank).names[-2:] == ("mine", "owl")
    assert other.read_bytes() == before
    assert file.look().names[-1] == ("other" if linked else "owl")


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_link_to_a_file_that_is_not_there_is_read_as_before_and_not_changed(bundle: Bundle, tmp_path: Path) -> None:
    path, target = tmp_path / "b.safetensors", tmp_path / "absent.safetensors"
    add(bundle.bank, ["owl"], name_rows(["owl"])).save(path)
    file = BankFile(path, bundle)
    path.unlink()
    path.symlink_to(target)
    assert file.look().names[-1] == "owl"
    with pytest.raises(BankError, match="is a link to a file that is not there"), file.changing():
        pass
    assert not target.exists()


def test_places_that_are_refused(bundle: Bundle, path: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    check_place(path)
    check_place(bundle.path / "bank.safetensors", changeable=False)
    with pytest.raises(BankError, match="no such bank file"):
        BankFile(path, bundle, missing=False)
    if os.geteuid():
        (tmp_path / "folder").chmod(0o500)
        with pytest.raises(InputError, match="cannot be written"):
            check_place(tmp_path / "folder" / "b.safetensors")
