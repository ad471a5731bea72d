"""Where a bank file may lie, and how a process reads it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from support.banks import unit_row, unit_rows
from support.bundles import DIM, example_manifest

from sar_infer import bank as banks
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bundle import bank_file
from sar_infer.bundle.bank_file import BankFile
from sar_infer.bundle.bundle import Bundle
from sar_infer.errors import BankError, InputError


def bundle(which: str, *names: str) -> Bundle:
    manifest = dataclasses.replace(example_manifest(), encoder_digest=which * 64)
    bank = ClassBank.of(names, unit_rows(names, DIM), which * 64).shared(Path("nowhere", which))
    return Bundle(Path("nowhere"), manifest.sealed(), bank)


def embed(groups: list[tuple[str, ...]]) -> np.ndarray:
    return unit_rows(["|".join(("new", *group)) for group in groups], DIM)


OLD, NEW = bundle("e", "cat", "dog"), bundle("f", "cat", "owl")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A bank of the old encoder with one class more."""
    bank = banks.add(OLD.bank, ["fox"], unit_row("fox", DIM)[np.newaxis], {"fox": ClassInfo(threshold=0.5)})
    banks.remove(bank, ["dog"]).save(tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_paths_that_cannot_be_changed(file: Path, tmp_path: Path) -> None:
    for text in ("{}", '{"files": ["mine.safetensors"]}', '{"files": {"other": {}}}', "[]", "{"):
        (tmp_path / "manifest.json").write_text(text)  # of something else than a bundle
        bank_file.check_changeable(file)
        bank_file.check_changeable(tmp_path / "new.safetensors")
    (tmp_path / "manifest.json").write_text('{"files": {"mine.safetensors": {}}}')
    for path in (tmp_path, tmp_path / "absent" / "mine.safetensors", tmp_path / "mine", file):
        with pytest.raises(InputError):
            bank_file.check_changeable(path)


def test_a_file_that_is_mounted_alone_is_refused_with_the_mend(tmp_path: Path) -> None:
    """The kernel mounts single files in every container; where it lists none, there is nothing to test."""
    mounts = Path("/proc/self/mountinfo")
    places = [Path(line.split()[4]) for line in mounts.read_text().splitlines()] if mounts.exists() else []
    files = [path for path in places if path.is_file()]
    if not files:
        pytest.skip("no single file is mounted here")
    with pytest.raises(InputError):
        bank_file.check_changeable(files[0])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(file: Path) -> None:
    file.parent.chmod(0o500)
    try:
        with pytest.raises(InputError):
            bank_file.check_changeable(file)
    finally:
        file.parent.chmod(0o700)


def test_no_file_is_the_bundles_bank(tmp_path: Path) -> None:
    assert BankFile(tmp_path / "none", OLD).look() is OLD.bank
    with pytest.raises(BankError):
        bank_file.read(tmp_path / "none", OLD)


def test_a_look_reads_what_is_new_and_nothing_else(file: Path) -> None:
    reader = BankFile(file, OLD)
    first = reader.bank
    assert list(first.names) == ["cat", "fox"]
    assert not reader.changed
    assert reader.look() is first
    banks.add(first, ["emu"], unit_row("emu", DIM)[np.newaxis]).save(file)
    assert reader.changed
    assert list(reader.look().names) == ["cat", "fox", "emu"]
    assert reader.bank.history[0] is first.history[0]
    file.unlink()
    assert list(reader.look().names) == ["cat", "fox", "emu"]


def test_a_file_that_cannot_be_used_leaves_the_bank(file: Path) -> None:
    reader = BankFile(file, OLD)
    first = reader.bank
    file.write_bytes(b"hello")
    with pytest.raises(BankError, match="mine"):
        reader.look()
    assert reader.bank is first
    assert reader.changed


def test_a_file_of_another_encoder_is_refused_or_replayed(file: Path) -> None:
    with pytest.raises(BankError, match="sar-bank rebase .*mine.* --bundle nowhere .*expected ffffffff"):
        BankFile(file, NEW)
    before = file.read_bytes()
    reader = BankFile(file, NEW, embed)
    assert list(reader.bank.names) == ["cat", "owl", "fox"]
    np.testing.assert_array_equal(reader.bank.rows_at([2])[0], unit_row("new|fox", DIM))
    assert reader.rebased is not None
    assert file.read_bytes() == before
    reader.save(reader.bank)
    assert bank_file.read(file, NEW).info["fox"].threshold == 0.5
    banks.remove(reader.bank, ["owl"]).save(file)
    assert list(reader.look().names) == ["cat", "fox"]
    assert reader.rebased is None


def test_a_bundle_that_nobody_named_has_to_be_the_banks_own(file: Path, tmp_path: Path) -> None:
    bank_file.check_encoder(file, OLD)
    bank_file.check_encoder(tmp_path / "none", NEW)
    with pytest.raises(InputError, match="name its own bundle with --bundle"):
        bank_file.check_encoder(file, NEW)


def test_rows_of_another_length_are_refused(file: Path) -> None:
    ClassBank.of(("one",), np.eye(1, 2, dtype=np.float32), "e" * 64).save(file)
    with pytest.raises(BankError):
        bank_file.read(file, OLD)


def test_a_file_that_shares_rows_with_the_bundle_is_taken_as_a_difference(file: Path) -> None:
    rows = np.concatenate([unit_rows(["fox"], DIM), OLD.bank.rows_at([1])])
    ClassBank.of(("fox", "dog"), rows, "e" * 64, info={"fox": ClassInfo(aliases=("reynard",))}).save(file)
    bank = bank_file.read(file, OLD)
    assert list(bank.names) == ["dog", "fox"]
    assert bank.base is OLD.bank.base
    assert bank.positions_from(OLD.bank, [0, 1]).tolist() == [-1, 0]
    assert bank.lookup.find("reynard") == 1


def test_a_file_that_has_little_of_the_bundles_stands_alone(file: Path) -> None:
    alone = ClassBank.of(("fox", "emu", "yak"), unit_rows(["fox", "emu", "yak"], DIM), "e" * 64)
    banks.remove(alone, ["fox"]).save(file)
    bank = bank_file.read(file, OLD)
    assert list(bank.names) == ["emu", "yak"]
    assert bank.base is not OLD.bank.base
    assert list(banks.rollback(bank, 0).names) == ["fox", "emu", "yak"]
