"""The bank file: what a damaged one says, what a killed writer leaves, and what does not grow."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from support.banks import DIM, ENCODER, content, example_bank, learning, photo_set, unit_row, unit_rows
from support.disk import files_of_at_most
from support.examples import NIGHTLY
from support.tensor_bytes import read as parts_of
from support.tensor_bytes import write as write_parts

from sar_infer.bank import ClassBank, add, add_photos, fit, forget_photos, learn, remove, rename, rollback, set_class
from sar_infer.bank.file import checksum
from sar_infer.bank.steps import MOST_STEPS, MOST_TEXT, UNDO_RECORDS, UNDO_STEPS
from sar_infer.errors import BankError, BaseMissingError, InputError, SarInferError, SchemaError

KILLS = 500 if NIGHTLY else 100


def rich_bank(folder: Path) -> ClassBank:
    example_bank().save(folder / "base.safetensors")
    bank = ClassBank.load(folder / "base.safetensors").shared(folder / "base.safetensors")
    bank = add_photos(add(bank, {"owl": ("an owl",)}, unit_rows(["an owl"])), {"owl": photo_set("p", "q")})
    bank = set_class(rename(remove(bank, ["dog"]), "fox", "red fox"), "owl", aliases=("hooter",), threshold=0.5)
    return learn(fit(bank, {"slope": np.array(0.5)}), learning(bank, {"owl": "seen"}))


def test_what_was_saved_is_loaded_without_the_bundle_being_named(tmp_path: Path) -> None:
    bank = rich_bank(tmp_path)
    bank.save(tmp_path / "b")
    loaded = ClassBank.load(tmp_path / "b")
    assert content(loaded) == content(bank)
    assert content(rollback(loaded, 3)) == content(rollback(bank, 3))
    before = (tmp_path / "b").read_bytes()
    loaded.save(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == before
    (tmp_path / "base.safetensors").unlink()
    with pytest.raises(BaseMissingError, match="is not there; name its bundle"):
        ClassBank.load(tmp_path / "b")


def test_a_bundle_with_other_classes_is_not_taken_for_the_base(tmp_path: Path) -> None:
    rich_bank(tmp_path).save(tmp_path / "b")
    example_bank(["cat", "cow"]).save(tmp_path / "base.safetensors")
    other = ClassBank.load(tmp_path / "base.safetensors").shared(tmp_path / "base.safetensors")
    for base in (other, None):
        with pytest.raises(BaseMissingError, match="has other classes now; carry the bank over: sar-bank carry"):
            ClassBank.load(tmp_path / "b", base=base)
    with pytest.raises(BankError, match="another encoder .*sar-bank carry"):
        ClassBank.load(tmp_path / "b", "f" * 64)


def test_every_flipped_byte_and_every_cut_is_one_line(tmp_path: Path) -> None:
    """Any byte: of lengths, names of tensors, classes, embeddings, steps, arrays."""
    rich_bank(tmp_path).save(tmp_path / "b")
    data = (tmp_path / "b").read_bytes()
    sound = content(ClassBank.load(tmp_path / "b"))
    for position in range(0, len(data), 1 if NIGHTLY else 3):
        for damaged in (data[:position] + bytes([data[position] ^ 0x20]) + data[position + 1 :], data[:position]):
            (tmp_path / "b").write_bytes(damaged)
            try:
                bank = ClassBank.load(tmp_path / "b")
            except SarInferError as error:
                assert str(error).startswith(f"{tmp_path / 'b'}: ")
                assert str(error).isprintable()
            else:  # white space of the header
                assert content(bank) == sound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"dim":4', '"dim":5'), "expected embeddings of 5 numbers"),
        (lambda text: text.replace('"cat",0', '"cat",9'), "damaged"),
        (lambda text: text.replace('"cat"', '"dog"'), "'dog' is there twice"),
        (lambda text: text.replace('"cat"', r'"c\u0007t"'), "control character"),
        (lambda text: text.replace('"cat"', "17"), "damaged"),
        (lambda text: text.replace('"folded":[', '"folded":[["x"],'), None),
        (lambda text: text.replace('"steps":[]', '"steps":[{}]'), "damaged"),
        (lambda text: text.replace('"steps":[]', '"steps":7'), "damaged"),
        (lambda text: "[" * 100_000, "not a bank file"),
        (lambda text: "[]", "expected a JSON object"),
    ],
)
def test_what_a_hostile_bundle_may_state_is_one_line(tmp_path: Path, change, message: str | None) -> None:
    example_bank().save(tmp_path / "b")
    metadata, tensors = parts_of(tmp_path / "b")
    tensors["json"] = np.frombuffer(change(tensors["json"].tobytes().decode()).encode(), np.uint8)
    write_parts(tmp_path / "b", metadata | {"digest": checksum(tensors)}, tensors)
    if message is None:
        assert ClassBank.load(tmp_path / "b").names == ("cat", "dog", "fox")
        return
    with pytest.raises(BankError, match=message):
        ClassBank.load(tmp_path / "b")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="no such bank file"):
        ClassBank.load(tmp_path / "b")
    with pytest.raises(BankError, match="is a folder"):
        ClassBank.load(tmp_path)
    (tmp_path / "b").write_text("cat\ndog\n")
    with pytest.raises(BankError, match="not a (readable )?bank file"):
        ClassBank.load(tmp_path / "b")
    example_bank().save(tmp_path / "b")
    metadata, tensors = parts_of(tmp_path / "b")
    write_parts(tmp_path / "b", metadata | {"version": "2"}, tensors)
    with pytest.raises(SchemaError, match="version 2, this is 1: upgrade"):
        ClassBank.load(tmp_path / "b")
    write_parts(tmp_path / "b", metadata | {"format": "sar-head"}, tensors)
    with pytest.raises(BankError, match="not a (readable )?bank file"):
        ClassBank.load(tmp_path / "b")


def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    bank, file = rich_bank(tmp_path), tmp_path / "b"
    bank.save(file)
    rng, confirmed = random.Random(0), 0
    for number in range(KILLS):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                one = ClassBank.load(file)
                while True:
                    name = f"class {one.log.last}"
                    one = set_class(add(one, [name], unit_row(name)[np.newaxis]), name, threshold=0.5)
                    one.save(file)
                    os.write(writing, b"%d\n" % one.log.last)
            finally:
                os._exit(1)
        os.close(writing)
        said = os.read(reading, 1 << 16).split() if number % 4 == 0 else []  # however slow the machine is
        time.sleep(rng.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said += os.read(reading, 1 << 16).split()
        os.close(reading)
        confirmed = max(confirmed, *map(int, said), 0) if said else confirmed
        now = ClassBank.load(file)
        assert now.log.last >= confirmed  # what was confirmed is there
        last = now.entries[now.keys[-1]]
        assert last.threshold == 0.5  # one step or the other, no part of one
    assert confirmed > 0


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    bank, file = rich_bank(tmp_path), tmp_path / "b"
    bank.save(file)
    before, files = file.read_bytes(), sorted(tmp_path.iterdir())
    with files_of_at_most(len(before) // 2), pytest.raises(OSError, match="File too large"):
        add(bank, ["yak"], unit_rows(["yak"])).save(file)
    assert (file.read_bytes(), sorted(tmp_path.iterdir())) == (before, files)


def test_history_and_file_are_bounded(tmp_path: Path) -> None:
    bank = example_bank()
    long = "x" * 5000
    for number in range(MOST_STEPS + 10):
        bank = set_class(bank, "cat", threshold=number % 100 / 100, by=long)
    assert len(bank.history) == MOST_STEPS
    assert (bank.history[0].n, bank.log.last) == (11, MOST_STEPS + 10)
    assert all(len(step.by) == MOST_TEXT for step in bank.history)
    bank.save(tmp_path / "b")
    assert (tmp_path / "b").stat().st_size < MOST_STEPS * 1000
    assert [step.can_undo for step in ClassBank.load(tmp_path / "b").history[-UNDO_STEPS - 1 :]] == [
        False,
        *[True] * UNDO_STEPS,
    ]


def test_steps_that_were_rolled_back_push_no_other_step_out(tmp_path: Path) -> None:
    bank = add(remove(example_bank(), ["dog"]), ["gnu"], unit_rows(["gnu"]))
    names = bank.names
    for _ in range(MOST_STEPS // 2 + 1):
        bank = rollback(add(bank, ["yak"], unit_rows(["yak"])), 2)
    bank.save(tmp_path / "b")
    assert bank.names == ClassBank.load(tmp_path / "b").names == names
    assert (len(bank.history), bank.log.line[0]) == (MOST_STEPS, 2)


def test_steps_and_records_that_can_be_undone() -> None:
    assert (UNDO_STEPS, UNDO_RECORDS) == (64, 4)  # as docs/banks.md says
    bank = example_bank()
    for number in range(UNDO_STEPS + 3):
        bank = set_class(bank, "cat", threshold=number / 100)
    with pytest.raises(InputError, match="cannot go back to step 2: .* too old .*; go back to one of 3, 4, "):
        rollback(bank, 2)


def test_of_many_photos_the_latest_embeddings_are_stored(tmp_path: Path) -> None:
    labels = [f"photo {number}" for number in range(100)]
    bank = add_photos(example_bank(), {"cat": photo_set(*labels[:70])})
    bank = add_photos(bank, {"cat": photo_set(*labels[60:])})
    bank.save(tmp_path / "b")
    photos = ClassBank.load(tmp_path / "b").photos_of("cat")
    assert (len(photos), len(photos.rows)) == (100, 64)
    np.testing.assert_array_equal(photos.rows, unit_rows(labels[36:]))
    np.testing.assert_allclose(photos.total, unit_rows(labels).astype(np.float64).sum(axis=0), atol=1e-12)
    for _ in range(UNDO_STEPS + 1):  # until no step needs the older embeddings
        bank = set_class(bank, "cat", background=not bank.entry("cat").background)
    bank.save(tmp_path / "b")
    loaded = ClassBank.load(tmp_path / "b")
    assert parts_of(tmp_path / "b")[1]["photos"].shape == (64, DIM)
    with pytest.raises(InputError, match="among the oldest of the class"):
        forget_photos(loaded, "cat", photo_set(labels[0]).digests)
    after = forget_photos(loaded, "cat", photo_set(labels[99]).digests)
    assert (len(after.photos_of("cat")), len(after.photos_of("cat").rows)) == (99, 63)


def test_undone_steps_keep_their_text_and_lose_their_rows(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(500)]
    bank = add(example_bank("abc"), names, unit_rows(names))
    bank.save(tmp_path / "b")
    before = (tmp_path / "b").stat().st_size
    rollback(bank, 0).save(tmp_path / "b")
    assert (tmp_path / "b").stat().st_size < before - 500 * 4 * DIM
    assert ClassBank.load(tmp_path / "b").history[0].summary == "added 500"


def test_the_file_is_as_its_page_says(tmp_path: Path) -> None:
    """A reader in another language: header, JSON, tensors."""
    rich_bank(tmp_path).save(tmp_path / "b")
    metadata, tensors = parts_of(tmp_path / "b")
    assert {key: metadata[key] for key in ("format", "version")} == {"format": "sar-bank", "version": "1"}
    state = json.loads(tensors["json"].tobytes())
    assert (state["encoder"], state["dim"], state["begun"], state["folded"]) == (ENCODER, DIM, 0, [])
    assert state["base"]["names"] == {"1": "dog", "2": "fox"}
    puts = {put[0]: put[1:] for step in state["steps"] for put in step["puts"]}
    name, row, more = puts["3"]
    assert (name, more["aliases"], more["threshold"], more["photos"]) == ("owl", ["hooter"], 0.5, [[0, 2]])
    np.testing.assert_array_equal(tensors["embeddings"][row], unit_row("an owl"))
    np.testing.assert_array_equal(tensors["photos"], unit_rows("pq"))
    assert (puts["1"], puts["2"][0]) == ([], "red fox")
    assert tensors[puts["@model"][0]["arrays"]["slope"]] == 0.5
