"""The rules of the store: against a plain list, with threads, and with other processes on the same file."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import tempfile
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.banks import learning, photo_set
from support.bundles import BANK_NAMES, example_manifest, write_tokenizer
from support.disk import files_of_at_most, fill_disk
from support.examples import examples

from sar_infer import Classifier
from sar_infer import bank as banks
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import Bundle
from sar_infer.cli.bank import main as sar_bank
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.server.bank import store as store_module
from sar_infer.server.bank.snapshot import Entry
from sar_infer.server.bank.store import BankStore, Change, NewPhotos
from sar_infer.server.problems import Problem
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
def bundle(names: tuple[str, ...] = ("red", "green", "Grey thing"), which: str = "e") -> Bundle:
    """Return a bundle whose rows differ from those of ``encoder``, so that a test can tell them apart."""
    write_tokenizer(Path(FOLDER.name, "tokenizer.bpe.gz"))  # for the linter
    rows = np.array([unit("bundle", which, name) for name in names])
    bank = ClassBank.of(names, rows, which * 64, {"list": "mine"}).shared(Path("bundle", which))
    manifest = dataclasses.replace(example_manifest(), encoder_digest=which * 64, template=str(names))
    return Bundle(Path(FOLDER.name), manifest.sealed(), bank)


@functools.cache
def informed() -> Bundle:
    """Return the bundle with an alias and a threshold of red, and green as background with phrases."""
    info = {
        "red": ClassInfo(aliases=("crimson",), threshold=0.5),
        "green": ClassInfo(phrases=("leaf", "grass"), background=True),
    }
    plain = bundle()
    bank = ClassBank.of(plain.bank.names, plain.bank.embeddings, "e" * 64, info=info)
    return dataclasses.replace(plain, bank=bank.shared(Path("bundle", "informed")))


def opened(file: Path, of: Bundle | None = None) -> BankStore:
    of = of or bundle()
    return BankStore(file, of, encoder(of.manifest.encoder_digest[0]))


def loaded(file: Path) -> ClassBank:
    return ClassBank.verify(file, base=bundle().bank)


def rows_of(store: BankStore) -> dict[str, bytes]:
    return {name: row.tobytes() for name, row in zip(store.bank.names, store.bank.embeddings, strict=True)}


def listed(store: BankStore) -> list[tuple]:
    entries, count = store.snapshot.page("", 0, 1000)
    assert count == len(entries)
    return [(entry.name, entry.origin, entry.phrases) for entry in entries]


def refused(code: str, match: str | None = None) -> pytest.RaisesExc:
    return pytest.raises(Problem, match=match, check=lambda error: error.code == code)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.safetensors"


@pytest.fixture
def store(file: Path) -> BankStore:
    return opened(file)


# -------------------------------------------------------------------------------------------------- against a model
NAMES = st.sampled_from(
    ["red", "RED ", "green", "grey  thing", "mug", "Mug", "cup", "日本 spitz", "cafe\u0301", "CAF\u00c9"]
)
PHRASES = st.sampled_from([None, ("mug",), ("a", "b"), ("c", "  d")])
LABELS = st.lists(st.sampled_from("pqr"), unique=True, min_size=1, max_size=2)


def cleaned(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


class Model(RuleBasedStateMachine):
    """A store and a list of dictionaries, to which the file and restarts must make no difference."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "mine.safetensors")
        self.store = opened(self.file)
        self.classes: list[dict[str, Any]] = [
            {"name": name, "origin": "bundle", "phrases": (name,), "row": unit("bundle", "e", name), "photos": []}
            for name in bundle().bank.names
        ]
        self.earlier: list[list[dict[str, Any]]] = []

    def find(self, name: str) -> dict[str, Any] | None:
        key = cleaned(name).lower()
        return next((one for one in self.classes if one["name"].lower() == key), None)

    def written(self) -> bytes | None:
        return self.file.read_bytes() if self.file.exists() else None

    @rule(name=NAMES, phrases=PHRASES, labels=st.none() | LABELS)
    def put(self, name: str, phrases: tuple[str, ...] | None, labels: list[str] | None) -> None:
        existing, before = self.find(name), copy.deepcopy(self.classes)
        bundled = next((n for n in bundle().bank.names if n.lower() == cleaned(name).lower()), None)
        spelling = existing["name"] if existing else bundled or cleaned(name)
        texts = (cleaned(name),) if phrases is None else tuple(map(cleaned, phrases))
        texts = (spelling,) if texts == (cleaned(name),) else texts
        is_plain = texts == (spelling,)
        if existing is None:
            self.classes.append({"name": spelling, "origin": "bundle", "phrases": (), "photos": []})
        one = self.classes[-1] if existing is None else existing
        stays = existing and (one["phrases"] == texts or (is_plain and one["origin"] == "bundle"))
        if not (stays or (existing and labels and phrases is None)):
            row = unit("bundle", "e", spelling) if is_plain and bundled else unit("e", *texts)
            one |= {"origin": "added", "phrases": texts, "row": row}
        repeats = len({*one["photos"]} & {*(labels or ())})
        one["photos"] += [label for label in labels or () if label not in one["photos"]]
        written = self.written()
        photos = labels and NewPhotos(photo_set(*labels, dim=DIM), {}, "e" * 64)
        change = self.store.put(name, phrases, self.store.snapshot.etag, new=photos or None)
        entry = Entry(spelling, one["origin"], one["phrases"], len(one["photos"]))
        assert dataclasses.replace(change, findings=()) == Change(
            existing is None, self.store.snapshot.etag, entry, repeats
        )
        is_changed = [*map(repr, before)] != [*map(repr, self.classes)]
        self.earlier += [before] * is_changed
        assert (self.written() != written) == is_changed

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        existing = self.find(name)
        if existing is None or len(self.classes) == 1:
            with refused("not-found" if existing is None else "conflict"):
                self.store.remove(name)
            return
        self.earlier.append(copy.deepcopy(self.classes))
        self.classes.remove(existing)
        assert self.store.remove(name, self.store.snapshot.etag) == self.store.snapshot.etag

    @rule(steps=st.integers(1, 2))
    def rollback(self, steps: int) -> None:
        if steps > len(self.earlier):
            with pytest.raises(InputError):
                self.store.rollback(steps=steps)
            return
        self.classes = self.earlier[-steps]
        del self.earlier[-steps:]
        done = self.store.rollback(steps=steps, latest=len(self.store.bank.history))
        assert done == (self.store.bank.history[-1], self.store.snapshot)
        assert len(self.store.bank.names) == len(self.classes)

    @rule()
    def restart(self) -> None:
        self.store = opened(self.file)

    @invariant()
    def same(self) -> None:
        assert listed(self.store) == [(one["name"], one["origin"], one["phrases"]) for one in self.classes]
        assert rows_of(self.store) == {one["name"]: one["row"].tobytes() for one in self.classes}
        for one in self.classes:
            assert self.store.bank.photos_of(one["name"]).digest_set == photo_set(*one["photos"]).digest_set
        assert self.store.bank.added_count == sum(one["origin"] == "added" for one in self.classes)
        names = {one["name"] for one in self.classes}
        assert self.store.snapshot.removed == tuple(name for name in bundle().bank.names if name not in names)
        assert {step.by for step in self.store.bank.history} <= {"sar-serve"}
        assert self.file.exists() == bool(self.store.bank.history)
        assert self.store.look().etag == opened(self.file).snapshot.etag

    def teardown(self) -> None:
        self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=examples(100), stateful_step_count=15)


# ------------------------------------------------------------------------------------------------------------ changes
def test_facts_about_classes_of_the_bundle_stay(file: Path) -> None:
    store = opened(file, informed())
    for phrases in (None, ["green"], ["leaf", "grass"]):
        unchanged = Change(False, store.snapshot.etag, Entry("green", "bundle", ("leaf", "grass")))
        assert store.put("green", phrases) == unchanged
    assert not file.exists()
    for change in (lambda: store.put("green", ["moss"]), lambda: store.remove("green")):
        change()
        store.put("green")
        info = store.bank.info["green"]
        assert (info.phrases, info.background) == (("leaf", "grass"), True)
        np.testing.assert_array_equal(store.bank.embeddings[store.bank.index["green"]], unit("bundle", "e", "green"))
    store.put("red", ["rose"])
    assert store.bank.info["red"].aliases == ("crimson",)
    assert store.bank.info["red"].threshold == 0.5


def test_findings_are_told_or_refused_but_not_sought_in_a_large_bank(tmp_path: Path) -> None:
    many = bundle(("red", *(f"name {number}" for number in range(10_000))))
    stores = [opened(tmp_path / f"{of.bank.names[1]}.safetensors", of) for of in (bundle(), many)]
    with refused("conflict", "nothing was changed"):
        stores[0].put("r-ed", strict=True)
    assert [bool(store.put("r-ed").findings) for store in stores] == [True, False]


def test_photos_go_to_a_class_that_is_there_unless_they_may_create_one(store: BankStore) -> None:
    photos = NewPhotos(photo_set("p", dim=DIM), {}, "e" * 64, create=False)
    with refused("not-found", "only PUT adds a class: no class 'reed' in the bank; did you mean 'red'"):
        store.put("reed", new=photos)
    with refused("overloaded", "send them again"):
        store.put("red", new=dataclasses.replace(photos, encoder="f" * 64))
    assert store.put("red", new=photos).entry.photos == 1


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
    dark = banks.amend(bundle().bank, {name: ClassInfo(background=True) for name in bundle().bank.names})
    dark.save(file)
    store = opened(file)
    store.put("mug")
    with refused("conflict", "no class could be an answer"):
        store.rollback(steps=1)
    assert store.bank.names[-1] == "mug"


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


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("  ", None),
        ("a" * 257, None),
        ("a\nb", None),
        ("\ud800", None),
        ("caf\ufffd", None),
        ("a", []),
        ("a", ["b"] * 257),
        ("a", ["b", "\0"]),
        ("x", None),
    ],
)
def test_unusable_names_change_nothing(store: BankStore, file: Path, name: str, phrases: list[str] | None) -> None:
    with pytest.raises(ClassNameError):
        store.put(name, phrases)
    assert not file.exists()


@pytest.mark.parametrize("name", [None, "mine.safetensors"])
def test_without_a_file_or_a_key_it_is_read_only(tmp_path: Path, name: str | None) -> None:
    store = BankStore(name and tmp_path / name, bundle(), encoder(), writable=False)
    for change in (lambda: store.put("mug"), lambda: store.remove("red"), lambda: store.rollback(to=0)):
        with refused("writes-disabled", "--bank"):
            change()
    assert store.look().bank is bundle().bank
    assert list(tmp_path.iterdir()) == []


def test_what_was_learned_is_one_step_unless_it_is_a_dry_run(store: BankStore) -> None:
    change, taught = learning({"red": "r"}, dim=DIM), SimpleNamespace(bundle=bundle())
    taught.learn = lambda _, bank, all_known: (change, (bank.names, all_known))
    before, report = store.snapshot.etag, (bundle().bank.names, False)
    assert store.learn(taught, None, dry_run=True) == (report, before)
    with refused("precondition-failed"):
        store.learn(taught, None, if_match='"other"')
    with refused("overloaded", "loaded meanwhile; try again"):
        store.learn(SimpleNamespace(bundle=informed()), None)
    assert store.bank.history == ()
    assert store.learn(taught, None, before, all_known=True) == ((report[0], True), store.snapshot.etag)
    assert store.bank.learned.photos == change.photos


@pytest.mark.parametrize(("to", "steps"), [(2, None), (9, None), (None, None), (1, 1)])
def test_steps_that_cannot_be_gone_back_to(store: BankStore, to: int | None, steps: int | None) -> None:
    store.put("mug")
    store.put("cup")
    store.rollback(to=1)
    assert store.rollback(to=3)[0] is None
    with pytest.raises(InputError):
        store.rollback(to, steps)
    assert len(store.bank.history) == 3


# ----------------------------------------------------------------------------------------------------- preconditions
@pytest.mark.parametrize(
    ("form", "holds"),
    [("{}", True), ('"{}"', True), ('"other", "{}"', True), ('"other"', False), ('W/"{}"', False), ("", False)],
)
def test_if_match_names_the_present_digest(store: BankStore, form: str, holds: bool) -> None:
    store.put("mug")
    for change in (store.put, store.remove, lambda _, if_match: store.rollback(to=0, if_match=if_match)):
        if holds:
            change("red", if_match=form.format(store.snapshot.etag))
            continue
        with refused("precondition-failed", store.snapshot.etag):
            change("red", if_match=form.format(store.snapshot.etag))
    assert len(store.bank.history) == (3 if holds else 1)


def test_a_star_asks_that_the_class_exists_and_only_add_that_it_does_not(store: BankStore) -> None:
    with refused("precondition-failed", "no such class"):
        store.put("mug", if_match="*")
    with refused("precondition-failed", "class 'red' exists already"):
        store.put(" RED", ["rose"], only_add=True)
    assert store.put("mug", only_add=True).created
    store.put("red", ["rose"], if_match="*")
    store.remove("red", if_match="*")


def test_a_rollback_of_what_was_the_latest_step_takes_back_no_other(store: BankStore, file: Path) -> None:
    store.put("mug")
    tag = store.snapshot.etag
    banks.set_class(loaded(file), "mug", threshold=0.25).save(file)
    with refused("precondition-failed", "step 1 .* 2 is"):
        store.rollback(steps=1, if_match=tag, latest=1)
    assert store.bank.info["mug"].threshold == 0.25
    assert store.snapshot.etag == tag  # which does not say that there is another step
    store.rollback(steps=2, if_match=tag, latest=2)
    assert len(store.bank.names) == 3


def test_of_many_writers_with_one_digest_one_succeeds(store: BankStore, file: Path) -> None:
    """Let threads of two stores on one file, as two servers have them, all change what they saw."""
    tag, stores = store.snapshot.etag, [store, opened(file)]

    def attempt(number: int) -> str:
        try:
            return stores[number % 2].put(f"name {number}", if_match=tag).etag
        except Problem as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    assert outcomes == sorted([loaded(file).content_digest, *["precondition-failed"] * 7])
    assert len(loaded(file).names) == 4


# ------------------------------------------------------------------------------------- other processes, other threads
def test_what_sar_bank_wrote_is_taken_up_before_a_change(store: BankStore, file: Path) -> None:
    store.put("mug")
    before = store.snapshot.etag
    added = banks.add(loaded(file), ["cup"], unit("e", "cup")[np.newaxis], by="sar-bank add")
    banks.amend(added, {"mug": ClassInfo(threshold=0.25)}, by="sar-bank set").save(file)
    with refused("precondition-failed"):
        store.put("bowl", if_match=before)
    store.put("bowl")
    assert loaded(file).names[-3:] == ("mug", "cup", "bowl")
    assert loaded(file).info["mug"].threshold == 0.25
    assert [step.by for step in store.bank.history] == ["sar-serve", "sar-bank add", "sar-bank set", "sar-serve"]


def test_a_change_by_one_is_in_the_next_look_of_the_others(store: BankStore, file: Path) -> None:
    reader = BankStore(file, bundle(), encoder(), writable=False)
    for number in range(3):
        change = store.put(f"mug {number}")
        assert reader.look().etag == change.etag
    assert reader.bank.base is bundle().bank.base  # the bundle's rows are shared
    assert opened(file).rollback(steps=2)[1].etag == store.look().etag
    assert store.bank.names[-1] == "mug 0"


def test_a_file_that_cannot_be_used_leaves_the_old_classes(store: BankStore, file: Path) -> None:
    store.put("mug")
    before, content = store.snapshot, file.read_bytes()
    file.write_bytes(content[:-1])
    assert store.look() is before
    assert not store.usable
    with refused("conflict", r"mine\.safetensors"):
        store.put("cup")
    with pytest.raises(BankError, match=r"mine\.safetensors"):
        opened(file)
    assert file.read_bytes() == content[:-1]
    file.unlink()
    assert store.look() is before
    store.put("cup")
    assert loaded(file).names[-2:] == ("mug", "cup")


def test_a_file_that_could_not_be_read_is_tried_again(
    store: BankStore, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise BankError("too many open files")

    store.put("mug")
    banks.set_class(loaded(file), "mug", threshold=0.25).save(file)
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


def test_a_change_waits_for_the_lock_and_says_that_it_is_held(
    store: BankStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_file, "WAIT", 0.05)
    with owned(file), refused("overloaded", "another process"):
        store.put("mug")
    store.put("mug")


def test_servers_and_sar_bank_change_one_file_and_nothing_is_lost(
    bundle_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run ``sar-bank`` beside two stores, each in a thread."""
    monkeypatch.setattr(bank_file, "WAIT", 60)
    classifier = Classifier.open(bundle_path)
    stores = [BankStore(file, classifier.bundle, classifier.embed_phrases) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(lambda store=store, which=which: [store.put(f"{which} {number}") for number in range(10)])
            for which, store in enumerate(stores)
        ]
        for number in range(5):
            arguments = ["add", str(file), f"2 {number}", "--bundle", str(bundle_path)]
            done = CliRunner().invoke(sar_bank, arguments)
            assert done.exit_code == 0, done.output
        for each in work:
            each.result()
    bank = stores[0].look().bank
    expected = {f"{which} {number}" for which, count in enumerate((10, 10, 5)) for number in range(count)}
    assert (set(bank.names), len(bank.history)) == ({*BANK_NAMES, *expected}, 25)
    shown = CliRunner().invoke(sar_bank, ["history", str(file), "--bundle", str(bundle_path), "--format", "json"])
    assert {step["by"] for step in json.loads(shown.stdout)} == {"sar-serve", "sar-bank add"}


def test_a_change_is_written_to_the_bank_it_was_made_in_wherever_a_link_points_meanwhile(tmp_path: Path) -> None:
    first, second, link = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "link"))
    for file in (first, second):
        opened(file).put(file.stem)
    link.symlink_to(first)
    before = second.read_bytes()

    def embed(groups: list[tuple[str, ...]]) -> np.ndarray:
        link.unlink()
        link.symlink_to(second)
        return encoder()(groups)

    store = BankStore(link, bundle(), embed)
    store.put("mug")
    assert second.read_bytes() == before
    assert loaded(first).names[-2:] == ("first", "mug")
    assert store.look().bank.names[-1] == "second"


def test_a_look_that_takes_long_does_not_take_back_a_change(
    store: BankStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(file).put("mug")
    begun, go_on, snapshot = threading.Event(), threading.Event(), store_module.Snapshot

    def slow_snapshot(*arguments: ClassBank) -> Any:
        if not begun.is_set():
            begun.set()
            go_on.wait(60)
        return snapshot(*arguments)

    monkeypatch.setattr(store_module, "Snapshot", slow_snapshot)
    with ThreadPoolExecutor(2) as pool:
        look = pool.submit(store.look)
        try:
            assert begun.wait(60)
            change = pool.submit(store.put, "cup")
            wait([change], timeout=0.5)  # it may have to wait for the look
        finally:
            go_on.set()
        assert look.result().bank.names[-1] in ("mug", "cup")
        assert change.result().etag == store.snapshot.etag
    assert store.bank.names[-2:] == ("mug", "cup")


def test_every_snapshot_that_a_reader_sees_is_whole(store: BankStore) -> None:
    names = [f"name {number}" for number in range(6)]
    expected = {phrases: unit("e", *phrases).tobytes() for name in names for phrases in ((name,), (name, "too"))}
    expected |= {(name,): row for name, row in rows_of(store).items()}
    stop, etags = threading.Event(), set()

    def read() -> None:
        while not stop.wait(0.001):
            now = store.snapshot
            entries, _ = now.page("", 0, 1000)
            assert {entry.name for entry in entries} >= set(bundle().bank.names)
            for entry, row in zip(entries, now.bank.embeddings, strict=True):
                assert row.tobytes() == expected[entry.phrases]
            assert ClassBank.of(now.bank, now.bank.log).content_digest == now.etag
            etags.add(now.etag)

    def write(classes: list[str]) -> None:
        for name in classes * 4:
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
    assert len(etags) > 5
    assert store.bank.names == bundle().bank.names


# ------------------------------------------------------------------------------------------------------------- faults
def test_a_full_disk_changes_nothing(store: BankStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("mug")
    before, content = store.snapshot, file.read_bytes()
    with files_of_at_most(200), refused("not-stored", "was not made.*File too large"):
        store.put("cup")
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with refused("not-stored", "No space left"):
            store.remove("red")
    with monkeypatch.context() as patch:
        patch.setattr("sar_infer.storage.tensor_file.LONGEST_HEADER", 100)
        with refused("not-stored", "too large"):
            store.put("cup")
    assert store.snapshot is before
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]
    store.put("cup")


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
    embed, before = encoder("f"), file.read_bytes()

    def short(groups: list[tuple[str, ...]]) -> np.ndarray:
        if ("mug",) in groups:
            raise ClassNameError("class name 'mug' is too long")
        return embed(groups)

    after = BankStore(file, bundle(("RED", "cat", "dog", "green"), "f"), short)
    assert "sar-bank rebase" in caplog.text
    assert "class 'mug' cannot be embedded: class name 'mug' is too long" in caplog.text
    assert listed(after) == [
        ("cat", "bundle", ("cat",)),
        ("dog", "bundle", ("dog",)),
        ("green", "added", ("leaf",)),
        ("zebra", "added", ("zebra",)),
    ]
    expected = [unit("bundle", "f", "cat"), unit("bundle", "f", "dog"), unit("f", "leaf"), unit("f", "zebra")]
    np.testing.assert_array_equal(after.bank.embeddings, expected)
    for change in (lambda: after.put("cup"), lambda: after.remove("zebra"), lambda: after.rollback(to=0)):
        with refused("conflict", r"sar-bank rebase .*mine\.safetensors"):
            change()
    assert (file.read_bytes(), list(file.parent.iterdir())) == (before, [file])
    store.put("cup")
    assert after.look().bank.names[-1] == "cup"
