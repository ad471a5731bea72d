"""The rules of the store: against a plain dictionary, with threads, and with other processes on the same file."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import resource
import tempfile
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.bundles import BANK_NAMES, example_manifest, write_tokenizer
from support.disk import fill_disk
from support.examples import examples

from sar_infer import Classifier
from sar_infer import bank as banks
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.cli.bank import main as sar_bank
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.server.bank import store as store_module
from sar_infer.server.bank.changes import Change, ChangeRefusedError
from sar_infer.server.bank.snapshot import Entry
from sar_infer.server.bank.store import BankStore
from sar_infer.storage.files import owned

DIM = 8
"""As in ``example_manifest``."""
FOLDER = tempfile.TemporaryDirectory()


def unit(*seed: str) -> np.ndarray:
    """Return a row that depends on the words alone: CLIP's tokenizer knows no capitals."""
    row = np.random.default_rng(list("|".join(seed).lower().encode())).normal(size=DIM).astype(np.float32)
    return row / np.linalg.norm(row)


def encoder(which: str = "e") -> Callable:
    """Return an embed whose rows depend only on the encoder and the phrases, and which refuses names with an x."""

    def embed(groups) -> np.ndarray:
        for group in groups:
            if any("x" in phrase for phrase in group):
                raise ClassNameError(f"class name {group[0]!r} is too long")
        return np.array([unit(which, *group) for group in groups], dtype=np.float32).reshape(-1, DIM)

    return embed


@functools.cache
def folder() -> Path:
    """Return the folder of all bundles, which has a tokenizer for the linter."""
    write_tokenizer(Path(FOLDER.name, "tokenizer.bpe.gz"))
    return Path(FOLDER.name)


@functools.cache
def bundle(names: tuple[str, ...] = ("red", "green", "Grey thing"), which: str = "e") -> Bundle:
    """Return a bundle whose rows differ from those of ``encoder``, so that a test can tell them apart."""
    rows = np.array([unit("bundle", which, name) for name in names])
    bank = ClassBank(names, rows, which * 64, {"list": "mine"}).shared(Path("bundle", which))
    manifest = dataclasses.replace(example_manifest(), encoder_digest=which * 64, template=str(names))
    return Bundle(folder(), manifest.sealed(), bank)


INFO = {
    "red": ClassInfo(aliases=("crimson",), threshold=0.5),
    "green": ClassInfo(phrases=("leaf", "grass"), background=True),
}


def informed(which: str = "e") -> Bundle:
    plain = bundle(which=which)
    bank = ClassBank(plain.bank.names, plain.bank.embeddings, which * 64, info=INFO)
    return dataclasses.replace(plain, bank=bank.shared(Path("bundle", "informed")))


def opened(file: Path, of: Bundle | None = None) -> BankStore:
    of = of or bundle()
    return BankStore.open(file, of, encoder(of.manifest.encoder_digest[0]))


def loaded(file: Path, of: Bundle | None = None) -> ClassBank:
    return ClassBank.verify(file, base=(of or bundle()).bank)


def rows_of(store: BankStore) -> dict[str, bytes]:
    return {name: row.tobytes() for name, row in zip(store.bank.names, store.bank.embeddings, strict=True)}


def listed(store: BankStore) -> list[tuple]:
    entries, count = store.snapshot.page("", 0, 1000)
    assert count == len(entries)
    return [(entry.name, entry.origin, entry.phrases) for entry in entries]


def refused(code: str, match: str | None = None) -> pytest.RaisesExc:
    return pytest.raises(ChangeRefusedError, match=match, check=lambda error: error.code == code)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.safetensors"


@pytest.fixture
def store(file: Path) -> BankStore:
    return opened(file)


# ------------------------------------------------------------------------------------------------------------ changes
def test_nothing_is_written_before_the_first_change(store: BankStore, tmp_path: Path) -> None:
    assert store.bank is bundle().bank
    assert store.etag == bundle().bank.content_digest
    assert store.put("RED") == Change(False, store.etag, Entry("red", "bundle", ("red",)))
    assert list(tmp_path.iterdir()) == []


def test_put_adds_at_the_end_and_survives(store: BankStore, file: Path) -> None:
    before = store.etag
    change = store.put("  espresso   cup ")
    assert change == Change(True, store.etag, Entry("espresso cup", "added", ("espresso cup",)))
    assert store.etag != before
    assert store.bank.names == (*bundle().bank.names, "espresso cup")
    np.testing.assert_array_equal(store.bank.embeddings[-1], unit("e", "espresso cup"))
    again = opened(file)
    assert (rows_of(again), listed(again), again.etag) == (rows_of(store), listed(store), store.etag)


def test_an_identical_put_writes_nothing(store: BankStore, file: Path) -> None:
    first = store.put("mug", ["a mug", "a  cup"])
    written = file.stat().st_ino
    assert store.put("MUG", ["a mug", "a cup"]) == Change(False, first.etag, first.entry)
    assert file.stat().st_ino == written
    assert len(store.bank.history) == 1


def test_other_phrases_replace_in_place_and_keep_what_is_known(store: BankStore, file: Path) -> None:
    store.put("mug")
    store.put("cup")
    banks.amend(loaded(file), {"mug": ClassInfo(aliases=("beaker",), threshold=0.25)}).save(file)
    assert store.put("grey  THING", ["fog", "mist"]).created is False
    assert store.put("Mug", ["a mug"]).created is False
    assert listed(store) == [
        ("red", "bundle", ("red",)),
        ("green", "bundle", ("green",)),
        ("Grey thing", "added", ("fog", "mist")),
        ("mug", "added", ("a mug",)),
        ("cup", "added", ("cup",)),
    ]
    np.testing.assert_array_equal(store.bank.embeddings[2], unit("e", "fog", "mist"))
    info = store.bank.info["mug"]
    assert (info.aliases, info.threshold) == (("beaker",), 0.25)


def test_a_name_of_the_bundle_gets_the_bundles_row_back(store: BankStore) -> None:
    at_first = rows_of(store)
    store.put("green", ["leaf"])
    assert rows_of(store) != at_first
    store.put("Green")
    assert rows_of(store) == at_first
    store.remove("green")
    assert store.put("GREEN").created is True
    assert rows_of(store) == at_first
    store.rollback(to=0)
    assert store.etag == bundle().bank.content_digest
    assert store.snapshot.added == 0


def test_a_class_of_the_bundle_comes_back_with_what_the_bundle_knows(file: Path) -> None:
    store = opened(file, informed())
    own = Entry("green", "bundle", ("leaf", "grass"))
    for phrases in (None, ["green"], ["leaf", "grass"]):
        assert store.put("green", phrases) == Change(False, store.etag, own)
    assert not file.exists()
    for change in (lambda: store.put("green", ["moss"]), lambda: store.remove("green")):
        change()
        store.put("green")
        info = store.bank.info["green"]
        assert (info.phrases, info.background) == (("leaf", "grass"), True)
        np.testing.assert_array_equal(store.bank.embeddings[store.bank.index["green"]], unit("bundle", "e", "green"))


def test_a_bank_that_would_take_seconds_to_search_has_no_findings(tmp_path: Path) -> None:
    many = bundle(("red", *(f"name {number}" for number in range(10_000))))
    stores = [BankStore.open(tmp_path / f"{of.bank.names[1]}.safetensors", of, encoder()) for of in (bundle(), many)]
    assert [bool(store.put("reds").findings) for store in stores] == [True, False]


def test_removed_names_stay_away_and_are_listed(store: BankStore, file: Path) -> None:
    store.put("mug")
    assert store.remove("Red") == store.etag
    store.remove("MUG")
    again = opened(file)
    assert again.bank.names == ("green", "Grey thing")
    assert again.snapshot.find("red") is None
    assert again.snapshot.removed == ("red",)
    with refused("not-found", "no class 'mug'"):
        again.remove("mug")


def test_a_renamed_class_is_not_listed_as_removed(file: Path) -> None:
    renamed = banks.rename(bundle().bank, "red", "ruby")
    renamed.save(file)
    assert opened(file).snapshot.removed == ()
    banks.rename(renamed, "ruby", "rose", unit("e", "rose")).save(file)
    assert opened(file).snapshot.removed == ("red",)  # its embedding is gone
    banks.remove(renamed, ["ruby"]).save(file)
    assert opened(file).snapshot.removed == ("red",)


def test_the_last_class_that_can_be_an_answer_stays(file: Path) -> None:
    store = opened(file, informed())  # green is background
    store.remove("Grey thing")
    with refused("conflict", "class 'red' is the last one"):
        store.remove("red")
    store.remove("green")
    with refused("conflict", "class 'red' is the last one"):
        store.remove("red")
    assert store.bank.names == ("red",)


def test_an_alias_of_a_class_is_no_name_for_another(file: Path) -> None:
    store = opened(file, informed())
    with refused("conflict", "'CRIMSON' is another name of class 'red'"):
        store.put("CRIMSON")
    assert not file.exists()
    store.remove("red")
    assert store.put("crimson").created
    before = file.read_bytes()
    with refused("conflict", "'crimson'"):
        store.put("RED")
    assert file.read_bytes() == before


def test_spellings_that_a_bundle_has_twice_have_to_be_exact(file: Path) -> None:
    store = opened(file, bundle(("Cat", "cat", "dog")))
    with pytest.raises(ClassNameError, match="exactly"):
        store.put("CAT", ["a cat"])
    store.put("Cat", ["a cat"])
    np.testing.assert_array_equal(store.bank.embeddings[0], unit("e", "a cat"))
    store.remove("Cat")
    assert store.bank.names == ("cat", "dog")


def test_composed_and_decomposed_letters_are_the_same_name(store: BankStore) -> None:
    store.put(unicodedata.normalize("NFD", "Café"))
    assert store.bank.names[-1] == unicodedata.normalize("NFC", "Café")
    assert store.put(unicodedata.normalize("NFC", "café")).created is False
    store.remove(unicodedata.normalize("NFD", "café"))


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("", None),
        ("  ", None),
        ("a" * 257, None),
        ("a\nb", None),
        ("a\x7f", None),
        ("\ud800", None),
        ("caf\ufffd", None),
        ("a", []),
        ("a", ["b"] * 257),
        ("a", ["b", "\0"]),
        ("x", None),
    ],
)
def test_names_that_cannot_be_used(store: BankStore, file: Path, name: str, phrases: list[str] | None) -> None:
    with pytest.raises(ClassNameError):
        store.put(name, phrases)
    assert store.bank is bundle().bank
    assert not file.exists()


@pytest.mark.parametrize("where", [None, "mine.safetensors"])
def test_without_a_file_or_a_key_it_is_read_only(tmp_path: Path, where: str | None) -> None:
    store = BankStore.open(where and tmp_path / where, bundle(), encoder(), writable=False)
    for change in (lambda: store.put("mug"), lambda: store.remove("red"), lambda: store.rollback(to=0)):
        with refused("writes-disabled", "--bank"):
            change()
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ history
def test_each_change_is_a_step_and_a_rollback_takes_steps_back(store: BankStore, file: Path) -> None:
    store.put("mug")
    tag = store.etag
    store.put("cup")
    store.remove("red")
    assert [(step.action, step.by) for step in store.bank.history] == [
        ("add", "sar-serve"),
        ("add", "sar-serve"),
        ("remove", "sar-serve"),
    ]
    done = store.rollback(steps=2)
    assert done.step is not None
    assert (done.step.n, done.step.to, done.classes, done.etag) == (4, 1, 4, tag)
    assert opened(file).bank.names == (*bundle().bank.names, "mug")
    assert store.rollback(to=4).step is None
    for to, steps in ((2, None), (9, None), (None, 9), (None, None), (1, 1)):
        with pytest.raises(InputError):
            store.rollback(to, steps)
    with refused("precondition-failed"):
        store.rollback(to=0, if_match='"other"')
    assert len(store.bank.history) == 4


def test_a_rollback_of_what_was_the_latest_step_takes_back_no_other(store: BankStore, file: Path) -> None:
    store.put("mug")
    tag = store.etag
    banks.amend(loaded(file), {"mug": ClassInfo(threshold=0.25)}).save(file)
    with refused("precondition-failed", "step 1 .* 2 is"):
        store.rollback(steps=1, if_match=tag, latest=1)
    assert store.bank.info["mug"].threshold == 0.25
    assert store.etag == tag  # which does not say that there is another step
    assert store.rollback(steps=2, if_match=tag, latest=2).classes == 3


def test_a_rollback_leaves_a_class_that_can_be_an_answer(store: BankStore, file: Path) -> None:
    dark = banks.amend(bundle().bank, {name: ClassInfo(background=True) for name in bundle().bank.names})
    dark.save(file)
    store.put("mug")
    with refused("conflict", "no class could be an answer"):
        store.rollback(steps=1)
    assert store.bank.names[-1] == "mug"


# ----------------------------------------------------------------------------------------------------- preconditions
@pytest.mark.parametrize("form", ["{}", '"{}"', '"other", "{}"'])
def test_if_match_with_the_present_digest(store: BankStore, form: str) -> None:
    store.put("mug", if_match=form.format(store.etag))
    store.remove("mug", if_match=form.format(store.etag))


@pytest.mark.parametrize("form", ['"other"', 'W/"{}"', "", '"*"'])
def test_if_match_with_another(store: BankStore, form: str) -> None:
    tag = form.format(store.etag)
    for change in (store.put, store.remove):
        with refused("precondition-failed", store.etag):
            change("red", if_match=tag)
    assert store.bank is bundle().bank


def test_a_star_asks_that_the_class_exists(store: BankStore) -> None:
    with refused("precondition-failed", "no such class"):
        store.put("mug", if_match="*")
    store.put("red", ["rose"], if_match="*")
    store.remove("red", if_match="*")


@pytest.mark.parametrize("name", ["red", " RED"])
def test_a_class_that_is_there_can_be_kept_from_a_change(store: BankStore, name: str) -> None:
    with refused("precondition-failed", "class 'red' exists already"):
        store.put(name, ["rose"], only_add=True)
    assert store.bank is bundle().bank
    assert store.put("mug", only_add=True).created


def test_of_many_writers_with_one_digest_one_succeeds(store: BankStore, file: Path) -> None:
    """Let threads of two stores on one file, as two servers have them, all change what they saw."""
    tag, stores = store.etag, [store, opened(file)]

    def attempt(number: int) -> str:
        try:
            return stores[number % 2].put(f"name {number}", if_match=tag).etag
        except ChangeRefusedError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    etag = loaded(file).content_digest
    assert outcomes == sorted([etag, *["precondition-failed"] * 7])
    assert len(loaded(file).names) == 4


# ------------------------------------------------------------------------------------- other processes, other threads
def test_what_sar_bank_wrote_is_taken_up_before_a_change(store: BankStore, file: Path) -> None:
    store.put("mug")
    seen = store.etag
    banks.add(loaded(file), ["cup"], unit("e", "cup")[np.newaxis], by="sar-bank add").save(file)
    with refused("precondition-failed"):
        store.put("bowl", if_match=seen)
    assert store.bank.names[-2:] == ("mug", "cup")
    store.put("bowl")
    assert loaded(file).names[-3:] == ("mug", "cup", "bowl")
    assert [step.by for step in store.bank.history] == ["sar-serve", "sar-bank add", "sar-serve"]


def test_a_change_beside_names_and_rows_is_not_lost_either(store: BankStore, file: Path) -> None:
    store.put("mug")
    banks.amend(loaded(file), {"mug": ClassInfo(threshold=0.25)}).save(file)
    assert store.look().bank.info["mug"].threshold == 0.25
    store.put("cup")
    assert loaded(file).info["mug"].threshold == 0.25


def test_a_file_that_cannot_be_used_leaves_the_old_classes(store: BankStore, file: Path) -> None:
    store.put("mug")
    before = store.snapshot
    foreign = file.with_name("foreign.safetensors")
    ClassBank(("one",), unit("f", "one")[np.newaxis], "f" * 64).save(foreign)
    for content in (b"hello", foreign.read_bytes()[:-1]):
        file.write_bytes(content)
        assert store.look() is before
        assert not store.usable
        with refused("conflict", r"mine\.safetensors"):
            store.put("cup")
        assert file.read_bytes() == content
    file.unlink()
    assert store.look() is before
    store.put("cup")
    assert loaded(file).names[-2:] == ("mug", "cup")


def test_a_file_that_could_not_be_read_is_tried_again(
    store: BankStore, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("mug")
    banks.amend(loaded(file), {"mug": ClassInfo(threshold=0.25)}).save(file)
    with monkeypatch.context() as patch:
        patch.setattr(bank_file, "read", fails)
        store.look()
        assert not store.usable
        patch.setattr(bank_file, "read", None)  # a large bank takes too long to read it at every look
        store.look()
        patch.setattr(bank_file, "read", fails)
        monkeypatch.setattr(store_module, "_RETRY_SECONDS", 0)
        store.look()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert (store.look().bank.info["mug"].threshold, store.usable) == (0.25, True)


def fails(*_: object) -> None:
    raise BankError("too many open files")


def test_a_change_by_one_is_in_the_next_look_of_the_others(store: BankStore, file: Path) -> None:
    other, reader = opened(file), BankStore.open(file, bundle(), encoder(), writable=False)
    for number in range(3):
        change = store.put(f"mug {number}")
        assert [one.look().etag for one in (other, reader)] == [change.etag] * 2
    before = store.bank
    assert other.look().bank.base is before.base  # the bundle's rows are shared
    other.rollback(steps=2)
    assert store.look().bank.names[-1] == "mug 0"


def test_a_change_waits_for_the_lock_and_says_that_it_is_held(
    store: BankStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sar_infer.bundle.bank_file.WAIT", 0.05)
    with owned(file), refused("overloaded", "another process"):
        store.put("mug")
    store.put("mug")


def _adds(file: Path, which: str) -> None:
    bank_file.WAIT = 60  # a slow disk lets others wait for longer than users should
    store = opened(file)
    for number in range(10):
        store.put(f"{which} {number}")


def test_servers_and_sar_bank_change_one_file_and_nothing_is_lost(
    bundle_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run ``sar-bank`` against a store in this process, with a second one in a thread."""
    monkeypatch.setattr(bank_file, "WAIT", 60)
    classifier = Classifier.open(bundle_path)
    store = BankStore.open(file, classifier.bundle, classifier.embed_phrases)
    other = BankStore.open(file, classifier.bundle, classifier.embed_phrases)
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(lambda: [store.put(f"first {number}") for number in range(10)]),
            pool.submit(lambda: [other.put(f"second {number}") for number in range(10)]),
        ]
        for number in range(5):
            arguments = ["add", str(file), f"third {number}", "--bundle", str(bundle_path), "--no-lint"]
            done = CliRunner().invoke(sar_bank, arguments)
            assert done.exit_code == 0, done.output
        for each in work:
            each.result()
    store.look()
    expected = {f"{which} {n}" for which, count in (("first", 10), ("second", 10), ("third", 5)) for n in range(count)}
    assert set(store.bank.names) == {*BANK_NAMES, *expected}
    assert len(store.bank.history) == 25
    shown = CliRunner().invoke(sar_bank, ["history", str(file), "--bundle", str(bundle_path), "--format", "json"])
    assert {step["by"] for step in json.loads(shown.stdout)} == {"sar-serve", "sar-bank add"}


def test_processes_that_change_one_file_lose_nothing(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    work = [context.Process(target=_adds, args=(file, which)) for which in ("first", "second", "third")]
    for process in work:
        process.start()
    for process in work:
        process.join(60)
    assert [process.exitcode for process in work] == [0, 0, 0]
    bank = loaded(file)
    assert len(bank.names) == 3 + 30
    assert len(bank.history) == 30


def test_every_snapshot_that_a_reader_sees_is_whole(store: BankStore) -> None:
    names = [f"name {number}" for number in range(6)]
    expected = {phrases: unit("e", *phrases).tobytes() for name in names for phrases in ((name,), (name, "too"))}
    expected |= {(name,): row for name, row in rows_of(store).items()}
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.wait(0.001):
            now = store.snapshot
            entries, _ = now.page("", 0, 1000)
            assert {entry.name for entry in entries} >= set(bundle().bank.names)
            for entry, row in zip(entries, now.bank.embeddings, strict=True):
                assert row.tobytes() == expected[entry.phrases]
            assert ClassBank.of(now.bank, now.bank.log).content_digest == now.etag
            seen.add(now.etag)

    def write(own: list[str]) -> None:
        for name in own * 4:
            store.put(name)
            store.put(name, [name, "too"])
            store.remove(name)

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for writer in [pool.submit(write, names[:3]), pool.submit(write, names[3:])]:
                writer.result()
        finally:
            stop.set()
        for reader in readers:
            reader.result()
    assert len(seen) > 5
    assert store.bank.names == bundle().bank.names


# ------------------------------------------------------------------------------------------------------------- faults
def test_a_full_disk_changes_nothing(store: BankStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("mug")
    before, content = store.snapshot, file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with refused("not-stored", "was not made.*File too large"):
            store.put("cup")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with monkeypatch.context() as patch:
        fill_disk(patch)
        for change in (lambda: store.remove("red"), lambda: store.rollback(to=0)):
            with refused("not-stored", "No space left"):
                change()
    assert store.snapshot is before
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]
    store.put("cup")


def test_a_record_beyond_what_the_format_takes_changes_nothing(store: BankStore, monkeypatch) -> None:
    monkeypatch.setattr("sar_infer.storage.tensor_file.LONGEST_HEADER", 100)
    with refused("not-stored", "too large"):
        store.put("cup")
    assert store.bank is bundle().bank


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_damaged_file_is_refused_and_left(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(BankError, match=r"mine\.safetensors"):
        opened(file)
    assert file.read_bytes() == content


# ------------------------------------------------------------------------------------------------------ other bundles
def test_the_same_encoder_in_another_bundle_is_replayed_without_asking(store: BankStore, file: Path) -> None:
    store.put("mug")
    store.remove("red")
    written = file.stat().st_ino
    after = opened(file, bundle(("red", "two")))
    assert (list(after.bank.names), file.stat().st_ino) == (["two", "mug"], written)
    assert after.snapshot.removed == ("red",)
    after.put("cup")
    assert list(store.look().bank.names) == ["green", "Grey thing", "mug", "cup"]


def test_a_file_of_another_encoder_is_replayed_in_memory_and_not_changed(
    store: BankStore, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("zebra", "mug", "Cat"):
        store.put(name)
    store.put("green", ["leaf"])
    store.remove("red")
    first = file.read_bytes()
    after = opened(file, bundle(("RED", "cat", "dog", "green"), "f"))
    assert "sar-bank rebase" in caplog.text
    assert listed(after) == [
        ("cat", "bundle", ("cat",)),
        ("dog", "bundle", ("dog",)),
        ("green", "added", ("leaf",)),
        ("zebra", "added", ("zebra",)),
        ("mug", "added", ("mug",)),
    ]
    assert rows_of(after) == {
        "cat": unit("bundle", "f", "cat").tobytes(),
        "dog": unit("bundle", "f", "dog").tobytes(),
        "green": unit("f", "leaf").tobytes(),
        "zebra": unit("f", "zebra").tobytes(),
        "mug": unit("f", "mug").tobytes(),
    }
    for change in (lambda: after.put("cup"), lambda: after.remove("mug"), lambda: after.rollback(to=0)):
        with refused("conflict", r"sar-bank rebase .*mine\.safetensors"):
            change()
    assert (file.read_bytes(), list(file.parent.iterdir())) == (first, [file])
    store.put("cup")
    assert rows_of_look(after)["cup"] == unit("f", "cup").tobytes()


def rows_of_look(store: BankStore) -> dict[str, bytes]:
    store.look()
    return rows_of(store)


def test_a_class_that_does_not_suit_is_told_and_the_rest_is_there(
    store: BankStore, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("mug")
    store.put("zebra")

    def short(groups: list[tuple[str, ...]]) -> np.ndarray:
        if ("mug",) in groups:
            raise ClassNameError("class name 'mug' is too long: 9 tokens, 2 fit")
        return encoder("f")(groups)

    after = BankStore.open(file, bundle(which="f"), short)
    assert list(after.bank.names) == ["red", "green", "Grey thing", "zebra"]
    assert "class 'mug' cannot be embedded: class name 'mug' is too long" in caplog.text
    opened(file).put("cup")


def test_with_a_real_bundle(bundle_path: Path, file: Path) -> None:
    classifier = Classifier.open(bundle_path)
    store = BankStore.open(file, open_bundle(bundle_path), classifier.embed_phrases)
    store.put("dark blue")
    store.put("red", ["red", "rose"])
    with pytest.raises(ClassNameError, match="tokens"):
        store.put("word " * 20)
    assert store.bank.names == (*BANK_NAMES, "dark blue")
    np.testing.assert_allclose(store.bank.embeddings[-1], classifier.embed_names(["dark blue"])[0], atol=1e-6)


# -------------------------------------------------------------------------------------------------- against a model
NAMES = st.sampled_from(["red", "RED ", "green", "grey  thing", "mug", "Mug", "cup", "dog", "日本 spitz", "cafe\u0301"])


class Model(RuleBasedStateMachine):
    """A model of the store: dictionaries, to which files, restarts and other encoders must make no difference."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "mine.safetensors")
        self.bundle = bundle()
        self.added: dict[str, tuple[str, ...]] = {}
        self.removed: set[str] = set()
        self.were_own: set[str] = set()
        self.store = opened(self.file)

    @property
    def which(self) -> str:
        return self.bundle.manifest.encoder_digest[0]

    def bundle_keys(self) -> set[str]:
        return {name.lower() for name in self.bundle.bank.names}

    def expected(self) -> dict[str, bytes]:
        rows = {}
        for name in self.bundle.bank.names:
            if name.lower() not in self.removed:
                rows[name.lower()] = unit("bundle", self.which, name)
        for name, phrases in self.added.items():
            if phrases or name not in rows:
                rows[name] = unit(self.which, *(phrases or (self.spelled(name),)))
        return {name: row.tobytes() for name, row in rows.items()}

    def spelled(self, key: str) -> str:
        return next(name for name in self.store.bank.names if name.lower() == key)

    @rule(name=NAMES, phrases=st.sampled_from([None, ("a", "b"), ("c", "d")]))
    def put(self, name: str, phrases: tuple[str, ...] | None) -> None:
        key = " ".join(unicodedata.normalize("NFC", name).split()).lower()
        before, known = self.store.etag, self.expected()
        change = self.store.put(name, phrases)
        self.removed.discard(key)
        if phrases or key not in self.bundle_keys():
            self.added[key] = phrases or ()
            self.were_own |= {key} & self.bundle_keys()
        elif key not in known or self.added.get(key):
            self.added[key] = ()
            self.were_own.add(key)
        assert (change.created, change.etag) == (key not in known, self.store.etag)
        assert change.entry == self.store.snapshot.find(name)
        assert (known == self.expected()) == (before == change.etag)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        key = " ".join(unicodedata.normalize("NFC", name).split()).lower()
        known = self.expected()
        if key in known and len(known) > 1:
            self.store.remove(name, self.store.etag)
            self.added.pop(key, None)
            if key in self.bundle_keys() | self.were_own:
                self.removed.add(key)
                self.were_own.add(key)
        else:
            with refused("conflict" if key in known else "not-found"):
                self.store.remove(name)

    @precondition(lambda self: self.store.bank.history and self.store.bank.history[-1].can_undo)
    @rule()
    def take_back_and_do_again(self) -> None:
        """Undo the last step by another process, and make the same file again by hand."""
        bank = self.store.bank
        banks.rollback(bank, len(bank.history) - 1).save(self.file)
        bank.save(self.file)

    @rule()
    def restart(self) -> None:
        before = rows_of(self.store), listed(self.store)
        self.store = opened(self.file, self.bundle)
        assert (rows_of(self.store), listed(self.store)) == before

    @invariant()
    def same(self) -> None:
        assert {name.lower(): row for name, row in rows_of(self.store).items()} == self.expected()
        entries = listed(self.store)
        assert self.store.snapshot.added == sum(origin == "added" for _, origin, _ in entries)
        assert {name.lower() for name in self.store.snapshot.removed} == self.bundle_keys() - set(self.expected())
        assert self.store.look().etag == opened(self.file).etag

    def teardown(self) -> None:
        self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=examples(60), stateful_step_count=15)
