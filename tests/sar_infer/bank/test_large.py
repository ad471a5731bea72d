"""Banks that are mapped: the same behaviour, with a limit that small files exceed too."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.banks import content, example_bank, unit_rows

from sar_infer.bank import (
    ClassBank,
    ClassInfo,
    add,
    amend,
    class_bank,
    merge,
    nearest,
    remove,
    rename,
    rollback,
    settled,
)
from sar_infer.errors import BankError, SchemaError
from sar_infer.storage.named_tensors import Stored, digest_of
from sar_infer.storage.packed_names import PackedNames
from sar_infer.storage.tensor_file import TensorFile

NAMES = [f"class {number}" for number in range(50)]


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_bank, "MAPPED_BYTES", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    bank = example_bank(NAMES, {"class 3": ClassInfo(aliases=("three",), threshold=0.5, background=True)})
    remove(bank, ["class 7"]).save(tmp_path / "b")
    return tmp_path / "b"


def is_mapped(array: np.ndarray) -> bool:
    while array.base is not None and isinstance(array.base, np.ndarray):
        array = array.base
    return isinstance(array.base, mmap.mmap)


def test_rows_stay_in_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = ClassBank.load(path)
    assert is_mapped(bank.embeddings)
    assert is_mapped(bank.retired.rows)
    whole = ClassBank.verify(path)
    assert is_mapped(whole.embeddings)
    monkeypatch.undo()
    read = ClassBank.load(path)
    assert not is_mapped(read.embeddings)
    assert content(bank) == content(whole) == content(read)
    assert bank.content_digest == whole.content_digest == read.content_digest == remake(read).content_digest
    assert (bank.lookup.get("three"), bank.background.tolist().index(True)) == (3, 3)
    assert np.flatnonzero(~np.isnan(bank.thresholds)).tolist() == [3]


def remake(bank: ClassBank) -> ClassBank:
    return ClassBank(tuple(bank.names), bank.embeddings.copy(), bank.encoder_digest)


def test_edits_and_rollbacks_of_a_mapped_bank(path: Path) -> None:
    for number in range(3):
        add(ClassBank.verify(path), [f"more {number}"], unit_rows([f"m{number}"])).save(path)
    back = rollback(ClassBank.load(path), 0)
    assert content(back) == content(example_bank(NAMES, {"class 3": back.info["class 3"]}))


def test_a_replaced_file_does_not_disturb_who_has_the_old_one(path: Path) -> None:
    bank = ClassBank.load(path)
    before = content(bank)
    example_bank("ab").save(path)
    assert content(bank) == before


def damaged(path: Path, tensor: str) -> None:
    """One bit of a tensor turned."""
    with path.open("rb") as stream:
        place = TensorFile(stream).places[tensor]
    data = bytearray(path.read_bytes())
    data[place.start + 5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("embeddings", "content"),
        ("names", "content"),
        ("retired", "history"),
    ],
)
def test_what_opening_leaves_out_verifying_finds(path: Path, tensor: str, message: str) -> None:
    damaged(path, tensor)
    ClassBank.load(path)
    with pytest.raises(BankError, match=rf"b: .*{message}"):
        ClassBank.verify(path)


@pytest.mark.parametrize("tensor", ["embeddings", "names", "retired"])
@pytest.mark.parametrize(
    "edit",
    [
        lambda bank: add(bank, ["more"], unit_rows(["more"])),
        lambda bank: remove(bank, ["class 1"]),
        lambda bank: rename(bank, "class 1", "other"),
        lambda bank: amend(bank, {"class 1": ClassInfo(threshold=0.5)}),
        lambda bank: merge(example_bank(["more"]), bank),
        lambda bank: merge(bank, example_bank(["more"])),
        lambda bank: rollback(bank, 0),
        settled,
    ],
    ids=["add", "remove", "rename", "amend", "merge from", "merge", "rollback", "settled"],
)
def test_what_was_only_loaded_is_verified_before_it_is_edited(path: Path, tensor: str, edit) -> None:
    bank = ClassBank.load(path)
    assert edit(bank) is not bank
    damaged(path, tensor)
    with pytest.raises(BankError, match="digest"):
        edit(ClassBank.load(path))


def unread(names: Sequence[str], rows: np.ndarray, info: dict[str, ClassInfo] | None = None) -> ClassBank:
    """A bank whose names and rows nothing has checked."""
    packed, rows = PackedNames.of(names), rows.copy()
    rows.flags.writeable = False
    metadata = {"content_digest": digest_of(packed.data, packed.offsets, rows)}
    stored = Stored(packed, {"embeddings": rows}, metadata, checked=False)
    return ClassBank(packed, rows, "a" * 64, info=info or {}, file=stored)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_searching_finds_rows_that_are_no_numbers(path: Path, value: float) -> None:
    bank = ClassBank.load(path)
    rows = bank.embeddings.copy()
    rows[4, 2] = value
    unread(bank.names, rows).save(path)
    with pytest.raises(BankError, match="damaged"):
        nearest(ClassBank.load(path), bank.embeddings[:3], 2)


def test_verifying_finds_names_and_rows_that_are_unsound(path: Path) -> None:
    tensors = load_file(path)
    stored = ClassBank.load(path)
    tensors["embeddings"][4] *= 2
    names = ("class 0", "class 0", *NAMES[2:7], *NAMES[8:])
    for bank, message in (
        (unread(stored.names, tensors["embeddings"]), "class 4"),
        (unread(names, stored.embeddings), "class 0"),
    ):
        bank.save(path)
        ClassBank.load(path)
        with pytest.raises(BankError, match=message):
            ClassBank.verify(path)


def test_a_cut_or_stretched_file_is_refused_at_once(path: Path) -> None:
    data = path.read_bytes()
    for content_ in (data[:-1], data[: len(data) // 2], data + b"\0"):
        path.write_bytes(content_)
        with pytest.raises(BankError, match="safetensors"):
            ClassBank.load(path)


def test_changed_bytes_are_noticed_at_the_latest_when_verified(path: Path) -> None:
    example_bank("abc", {"a": ClassInfo(background=True)}).save(path)
    data, sound = path.read_bytes(), content(ClassBank.load(path))
    for position in range(0, len(data), 5):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        for read in (ClassBank.load, ClassBank.verify):
            try:
                bank = read(path, "a" * 64)
                used = content(bank), bank.background, bank.history
            except (BankError, SchemaError):
                continue
            assert read == ClassBank.load or used[0] == sound, position


def test_info_of_a_class_that_is_not_there(path: Path) -> None:
    bank = example_bank("ab")
    stray = unread(bank.names, bank.embeddings, {"c": ClassInfo(background=True)})
    with pytest.raises(BankError, match="'c'"):
        stray.check()


def test_a_file_of_version_1_is_mapped_too(tmp_path: Path) -> None:
    bank = example_bank(NAMES)
    digests = {"encoder_digest": "a" * 64, "content_digest": bank.content_digest}
    metadata = {"format": "sar-bank", "schema_version": "1", "min_reader": "1", **digests, "provenance": "{}"}
    tensors = {"embeddings": bank.embeddings, "names": bank.names.data, "offsets": bank.names.offsets}
    save_file({name: np.array(array) for name, array in tensors.items()}, tmp_path / "old", metadata)
    old = ClassBank.verify(tmp_path / "old", "a" * 64)
    assert (old.names, old.info, old.history, is_mapped(old.embeddings)) == (tuple(NAMES), {}, (), True)


def test_the_digest_of_a_file_holds_for_its_own_content_alone(path: Path) -> None:
    bank = ClassBank.load(path)
    again, copied = dataclasses.replace(bank), dataclasses.replace(bank, embeddings=bank.embeddings.copy())
    assert again.content_digest == copied.content_digest == bank.content_digest
    turned = dataclasses.replace(bank, embeddings=np.roll(bank.embeddings, 1, axis=0))
    assert turned.content_digest != bank.content_digest
    with pytest.raises(BankError, match="class 0"):
        dataclasses.replace(bank, embeddings=bank.embeddings * 2)


def test_a_damaged_bank_is_refused_each_time(path: Path) -> None:
    damaged(path, "embeddings")
    bank = ClassBank.load(path)
    for _ in range(2):
        with pytest.raises(BankError, match="digest"):
            bank.verified()
