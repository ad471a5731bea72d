"""Where a bank file may lie, and what is left when it follows to another encoder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from support.banks import photo_set, unit_row, unit_rows
from support.bundles import DIM, example_manifest
from support.disk import fill_disk

from sar_infer import bank as banks
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import Bundle
from sar_infer.errors import BankError, InputError, WriteError


def bundle(which: str, *names: str) -> Bundle:
    manifest = dataclasses.replace(example_manifest(), encoder_digest=which * 64)
    return Bundle(Path(), manifest.sealed(), ClassBank(names, unit_rows(names, DIM), which * 64))


def embed(groups: list[tuple[str, ...]]) -> np.ndarray:
    return unit_rows(["|".join(("new", *group)) for group in groups], DIM)


OLD, NEW = bundle("e", "cat", "dog"), bundle("f", "cat", "owl")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A bank of the old encoder with one class more."""
    bank = banks.add(OLD.bank, ["fox"], unit_row("fox", DIM)[np.newaxis], {"fox": ClassInfo(threshold=0.5)})
    banks.remove(bank, ["dog"]).save(tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_places_that_cannot_be_changed(file: Path, tmp_path: Path) -> None:
    bank_file.check_changeable(file)
    bank_file.check_changeable(tmp_path / "new.safetensors")
    (tmp_path / "manifest.json").write_text('{"files": {"mine.safetensors": {}}}')
    for place in (tmp_path, tmp_path / "absent" / "mine.safetensors", tmp_path / "mine", file):
        with pytest.raises(InputError):
            bank_file.check_changeable(place)


def test_a_file_that_is_mounted_alone_is_refused_with_the_mend(tmp_path: Path) -> None:
    """The kernel mounts single files in every container; where it lists none, there is nothing to test."""
    mounts = Path("/proc/self/mountinfo")
    places = [Path(line.split()[4]) for line in mounts.read_text().splitlines()] if mounts.exists() else []
    files = [place for place in places if place.is_file()]
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


def test_a_loaded_bank_has_the_digests_that_its_file_states(file: Path, tmp_path: Path) -> None:
    loaded = ClassBank.load(file)
    content, record = bank_file.digests(file) or ("", "")
    assert bank_file.digests_of(loaded) == (content, record)
    assert content == loaded.content_digest != record != ""
    assert bank_file.digests_of(OLD.bank) is None
    assert bank_file.digests(tmp_path / "none") is None


def test_no_file_is_the_bundles_bank(tmp_path: Path) -> None:
    assert bank_file.taken_up(tmp_path / "none", OLD, embed, write=True) is OLD.bank
    with pytest.raises(BankError):
        bank_file.read(tmp_path / "none", OLD)


def test_the_old_file_is_kept_and_taken_up_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = file.read_bytes()
    after = bank_file.taken_up(file, NEW, embed, write=True, by="a test")
    (warning,) = caplog.messages
    assert "belonged to another encoder; rewritten for this bundle with 3 classes" in warning
    assert warning.endswith(f"kept as {bank_file.kept_file(file, 'e' * 64)}")
    assert after.names == ("cat", "owl", "fox")
    np.testing.assert_array_equal(after.embeddings[2], unit_row("new|fox", DIM))
    assert (after.info["fox"].threshold, after.history[-1].by) == (0.5, "a test")
    assert bank_file.kept_file(file, "e" * 64).read_bytes() == first
    for _ in range(2):
        assert bank_file.taken_up(file, NEW, embed, write=True).content_digest == after.content_digest
    back = bank_file.taken_up(file, OLD, embed, write=True)
    assert back.names == ("cat", "fox")
    np.testing.assert_array_equal(back.embeddings[1], unit_row("fox", DIM))
    assert [step.action for step in back.history] == ["add", "remove"]


def test_a_kept_file_of_an_earlier_life_hides_no_class_of_the_bundle(file: Path) -> None:
    bank_file.taken_up(file, NEW, embed, write=True)
    bank_file.taken_up(file, OLD, embed, write=True)
    OLD.bank.save(file)  # begun again, with dog
    banks.remove(ClassBank.load(bank_file.kept_file(file, "f" * 64)), ["owl"]).save(bank_file.kept_file(file, "f" * 64))
    assert set(bank_file.taken_up(file, NEW, embed, write=True).names) == {"cat", "owl"}


def test_what_cannot_be_written_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    fill_disk(monkeypatch)
    with pytest.raises(WriteError):
        bank_file.taken_up(file, NEW, embed, write=True)
    assert file.read_bytes() == before
    bank_file.taken_up(file, NEW, embed, write=False)
    assert file.read_bytes() == before


def test_a_file_system_without_links(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    first = file.read_bytes()
    bank_file.taken_up(file, NEW, embed, write=True)
    assert bank_file.kept_file(file, "e" * 64).read_bytes() == first


def test_a_bundle_whose_classes_were_all_removed_is_refused(file: Path) -> None:
    bank = banks.add(OLD.bank, ["fox"], unit_row("fox", DIM)[np.newaxis])
    banks.remove(banks.remove(bank, ["dog", "cat"]), ["fox"]).save(file)
    with pytest.raises(BankError):
        bank_file.taken_up(file, bundle("f", "Cat"), embed, write=True)


def test_aliases_give_way_to_classes_of_the_new_bundle(file: Path) -> None:
    banks.amend(ClassBank.load(file), {"fox": ClassInfo(aliases=("owl", "reynard"))}).save(file)
    after = bank_file.taken_up(file, NEW, embed, write=True)
    assert after.info["fox"].aliases == ("reynard",)


def test_names_follow_and_photos_are_asked_for_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = {"fox": photo_set("p", "q", dim=DIM), "SKU-1": photo_set("r", dim=DIM, photos_only=True)}
    photos["cat"] = photo_set("s", dim=DIM)
    old = banks.add(ClassBank.load(file), ["SKU-1"], unit_rows(["SKU-1"], DIM), photos=photos)
    old.save(file)
    after = bank_file.taken_up(file, NEW, embed, write=True)
    assert {"cat", "fox", "SKU-1"} <= set(after.names)
    assert {name: (len(found), found.photos_only) for name, found in after.photos.items()} == {"SKU-1": (0, True)}
    assert all(repr(name) in caplog.text for name in photos)
    caplog.clear()
    back = bank_file.taken_up(file, OLD, embed, write=True)
    assert {name: found.seal for name, found in back.photos.items()} == {
        name: found.seal for name, found in old.photos.items()
    }
    assert not any("the photos of" in message for message in caplog.messages)
