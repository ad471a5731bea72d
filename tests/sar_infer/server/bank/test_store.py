"""The rules of the store, against a plain dictionary, with threads, and with a process that is killed."""

from __future__ import annotations

import dataclasses
import functools
import resource
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.bundles import BANK_NAMES, example_manifest

from sar_infer import Classifier
from sar_infer.artefact.bundle import Bundle, open_bundle
from sar_infer.bank import ClassBank, ClassInfo, add
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.server.bank.folder import BANK_FILE
from sar_infer.server.bank.refusals import ChangeRefusedError
from sar_infer.server.bank.snapshot import Entry
from sar_infer.server.bank.store import BankStore, Change

DIM = 8


def unit(*seed: str) -> np.ndarray:
    row = np.random.default_rng(list("|".join(seed).encode())).normal(size=DIM).astype(np.float32)
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
    rows = np.array([unit("bundle", which, name) for name in names])
    bank = ClassBank(names, rows, which * 64, {"list": "mine"})
    manifest = dataclasses.replace(example_manifest(), encoder_digest=which * 64, template=str(names))
    return Bundle(Path("nowhere"), manifest.sealed(), bank)


def rows_of(store: BankStore) -> dict[str, bytes]:
    return {name: row.tobytes() for name, row in zip(store.bank.names, store.bank.embeddings, strict=True)}


def listed(store: BankStore) -> list[tuple]:
    return [(entry.name, entry.origin, entry.phrases) for entry in store.snapshot.entries()]


def refused(code: str, match: str | None = None) -> pytest.RaisesExc:
    return pytest.raises(ChangeRefusedError, match=match, check=lambda error: error.code == code)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BankStore]:
    store = BankStore.open(tmp_path, bundle(), encoder())
    yield store
    store.close()


def reopened(store: BankStore, tmp_path: Path, new: Bundle | None = None, which: str = "e") -> BankStore:
    store.close()
    return BankStore.open(tmp_path, new or bundle(), encoder(which))


# ------------------------------------------------------------------------------------------------------------ changes
def test_nothing_is_written_before_the_first_change(store: BankStore, tmp_path: Path) -> None:
    assert store.bank is bundle().bank
    assert store.etag == bundle().bank.content_digest
    assert store.put("RED").changed is False
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


def test_put_adds_at_the_end_and_survives(store: BankStore, tmp_path: Path) -> None:
    before = store.etag
    change = store.put("  espresso   cup ")
    assert change == Change(True, True, store.etag, store.snapshot.find("espresso cup"))
    assert store.etag != before
    assert store.bank.names == (*bundle().bank.names, "espresso cup")
    np.testing.assert_array_equal(store.bank.embeddings[-1], unit("e", "espresso cup"))
    again = reopened(store, tmp_path)
    assert (rows_of(again), listed(again), again.etag) == (rows_of(store), listed(store), store.etag)
    again.close()


def test_an_identical_put_writes_nothing(store: BankStore, tmp_path: Path) -> None:
    first = store.put("mug", ["a mug", "a  cup"])
    written = (tmp_path / BANK_FILE).stat().st_ino
    assert store.put("MUG", ["a mug", "a cup"]) == Change(False, False, first.etag, first.entry)
    assert (tmp_path / BANK_FILE).stat().st_ino == written


def test_phrases_that_mean_the_same_to_the_encoder_write_nothing(tmp_path: Path) -> None:
    lower = encoder()
    store = BankStore.open(tmp_path, bundle(), lambda groups: lower([tuple(map(str.lower, group)) for group in groups]))
    first = store.put("mug", ["a mug"])
    assert store.put("mug", ["A MUG"]) == Change(False, False, first.etag, first.entry)
    assert store.snapshot.find("mug").phrases == ("a mug",)
    store.close()


def test_other_phrases_replace_in_place_and_keep_the_spelling(store: BankStore) -> None:
    store.put("mug")
    store.put("cup")
    assert store.put("grey  THING", ["fog", "mist"]) == Change(
        False, True, store.etag, store.snapshot.find("grey thing")
    )
    assert store.put("Mug", ["a mug"]).created is False
    assert listed(store) == [
        ("red", "bundle", ("red",)),
        ("green", "bundle", ("green",)),
        ("Grey thing", "added", ("fog", "mist")),
        ("mug", "added", ("a mug",)),
        ("cup", "added", ("cup",)),
    ]
    np.testing.assert_array_equal(store.bank.embeddings[2], unit("e", "fog", "mist"))


def test_a_name_of_the_bundle_gets_the_bundles_row_back(store: BankStore) -> None:
    at_first = rows_of(store)
    store.put("green", ["leaf"])
    assert rows_of(store) != at_first
    store.put("Green")
    assert rows_of(store) == at_first
    store.remove("green")
    assert store.put("GREEN").created is True
    assert (rows_of(store), store.etag) == (at_first, bundle().bank.content_digest)
    assert store.snapshot.find("green").origin == "bundle"


def test_removed_names_stay_away(store: BankStore, tmp_path: Path) -> None:
    store.put("mug")
    assert store.remove("Red") == store.etag
    store.remove("MUG")
    again = reopened(store, tmp_path)
    assert again.bank.names == ("green", "Grey thing")
    assert again.snapshot.find("red") is None
    with refused("not-found", "no class 'mug'"):
        again.remove("mug")
    again.close()


def test_the_last_class_stays(store: BankStore) -> None:
    for name in ("red", "green"):
        store.remove(name)
    with refused("conflict", "the last one"):
        store.remove("Grey thing")
    assert store.bank.names == ("Grey thing",)


def test_two_spellings_in_a_bundle_are_one_class(tmp_path: Path) -> None:
    store = BankStore.open(tmp_path, bundle(("Cat", "cat", "dog")), encoder())
    store.put("CAT", ["a cat"])
    np.testing.assert_array_equal(store.bank.embeddings[1], unit("e", "a cat"))
    store.remove("Cat")
    assert store.bank.names == ("dog",)
    store.close()


def test_composed_and_decomposed_letters_are_the_same_name(store: BankStore) -> None:
    store.put(unicodedata.normalize("NFD", "Café"))
    assert store.bank.names[-1] == unicodedata.normalize("NFC", "Café")
    assert store.put(unicodedata.normalize("NFC", "café")).changed is False
    store.remove(unicodedata.normalize("NFD", "café"))


@pytest.mark.parametrize(
    ("name", "phrases", "message"),
    [
        ("", None, "is empty"),
        ("  ", None, "is empty"),
        ("a" * 257, None, "257 characters, 256 are allowed"),
        ("a\nb", None, "control character"),
        ("a\x7f", None, "control character"),
        ("\ud800", None, "half a character"),
        ("caf\ufffd", None, "half a character"),
        ("a", [], "0 phrases; expected 1 to 256"),
        ("a", ["b"] * 257, "257 phrases"),
        ("a", ["b", "\0"], "control character"),
        ("x", None, "'x' is too long"),
    ],
)
def test_names_that_cannot_be_used(store: BankStore, name: str, phrases: list[str] | None, message: str) -> None:
    with pytest.raises(ClassNameError, match=message):
        store.put(name, phrases)
    assert store.bank is bundle().bank


def test_without_a_folder_it_is_read_only() -> None:
    store = BankStore.open(None, bundle(), encoder())
    for change in (lambda: store.put("mug"), lambda: store.remove("red")):
        with refused("writes-disabled", "--state"):
            change()
    assert store.rebased(bundle(("cat",)), encoder()).bank.names == ("cat",)
    store.close()


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
    with refused("precondition-failed"):
        store.put("mug", if_match="*")
    store.put("red", ["rose"], if_match="*")
    store.remove("red", if_match="*")


def test_of_many_writers_with_one_digest_one_succeeds(store: BankStore) -> None:
    tag = store.etag

    def attempt(number: int) -> str:
        try:
            return store.put(f"name {number}", if_match=tag).etag
        except ChangeRefusedError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    assert outcomes == sorted([store.etag, *["precondition-failed"] * 7])
    assert len(store.bank.names) == 4


# ------------------------------------------------------------------------------------------------------------ threads
def test_every_snapshot_that_a_reader_sees_is_whole(store: BankStore) -> None:
    names = [f"name {number}" for number in range(12)]
    expected = {phrases: unit("e", *phrases).tobytes() for name in names for phrases in ((name,), (name, "too"))}
    expected |= {(name,): row for name, row in rows_of(store).items()}
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            now = store.snapshot
            assert set(now.bank.names) >= set(bundle().bank.names)
            for entry, row in zip(now.entries(), now.bank.embeddings, strict=True):
                assert row.tobytes() == expected[entry.phrases]
            assert dataclasses.replace(now.bank).content_digest == now.etag
            seen.add(now.etag)
            time.sleep(0.001)

    def write(own: list[str]) -> None:
        for name in own * 4:
            store.put(name)
            store.put(name, [name, "too"])
            store.remove(name)

    with ThreadPoolExecutor(5) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for writer in [pool.submit(write, names[:6]), pool.submit(write, names[6:])]:
            writer.result()
        stop.set()
        for reader in readers:
            reader.result()
    assert len(seen) > 10
    assert store.bank.names == bundle().bank.names


# ------------------------------------------------------------------------------------------------------------- faults
def test_a_full_disk_changes_nothing(store: BankStore, tmp_path: Path) -> None:
    store.put("mug")
    before, content = store.snapshot, (tmp_path / BANK_FILE).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with refused("not-stored", "was not made.*File too large"):
            store.put("cup")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.snapshot is before
    assert (tmp_path / BANK_FILE).read_bytes() == content
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [BANK_FILE, "lock"]
    store.put("cup")


def test_a_record_beyond_what_the_format_takes_changes_nothing(store: BankStore, monkeypatch) -> None:
    monkeypatch.setattr("sar_infer.storage.tensor_file.LONGEST_HEADER", 100)
    with refused("not-stored", "header too large"):
        store.put("cup")
    assert store.bank is bundle().bank


def test_a_read_only_folder(store: BankStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, mode: str = "r") -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", read_only)
    with refused("not-stored", "Read-only file system"):
        store.remove("red")
    assert store.bank is bundle().bank


def test_after_closing_there_are_no_changes(store: BankStore) -> None:
    store.close()
    with refused("writes-disabled"):
        store.put("mug")


# ------------------------------------------------------------------------------------------------------ other bundles
def test_the_file_says_where_it_comes_from(store: BankStore, tmp_path: Path) -> None:
    store.put("mug", ["a mug"])
    store.remove("red")
    found = ClassBank.load(tmp_path / BANK_FILE, "e" * 64).provenance
    assert found["added"]["mug"].pop("at").endswith("Z")
    assert found == {
        "names": {"list": "mine"},
        "bundle": bundle().manifest.digest,
        "bundle_bank": bundle().bank.content_digest,
        "added": {"mug": {"phrases": ["a mug"]}},
        "removed": ["red"],
    }


@pytest.mark.parametrize("live", [True, False], ids=["exchanged", "restarted"])
def test_changes_are_carried_over_to_another_encoder(store: BankStore, tmp_path: Path, live: bool) -> None:
    for name in ("zebra", "mug", "Cat"):
        store.put(name)
    store.put("green", ["leaf"])
    store.remove("red")
    old = store.bank
    new = bundle(("RED", "cat", "dog", "green"), "f")
    after = store.rebased(new, encoder("f")) if live else reopened(store, tmp_path, new, "f")
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
    kept = ClassBank.load(tmp_path / f"bank-{old.content_digest[:16]}.safetensors", "e" * 64)
    assert (kept.names, kept.content_digest) == (old.names, old.content_digest)
    back = reopened(after, tmp_path)
    assert back.bank.names == ("green", "Grey thing", "zebra", "mug", "Cat")
    assert back.etag == old.content_digest
    back.close()


def test_the_same_bank_in_another_bundle_is_taken_as_it_is(store: BankStore, tmp_path: Path) -> None:
    store.put("mug")
    file = (tmp_path / BANK_FILE).stat().st_ino
    other = dataclasses.replace(bundle(), manifest=dataclasses.replace(bundle().manifest, template="{}").sealed())
    after = store.rebased(other, encoder())
    assert (after.etag, (tmp_path / BANK_FILE).stat().st_ino) == (store.etag, file)
    after.close()


def test_a_store_that_was_replaced_sends_its_writes_on(store: BankStore, tmp_path: Path) -> None:
    old = store.snapshot
    after = store.rebased(bundle(which="f"), encoder("f"))
    assert store.put("mug").etag == after.etag
    store.close()
    with pytest.raises(InputError, match="another server"):
        BankStore.open(tmp_path, bundle(), encoder())
    assert store.remove("red") == after.etag
    assert store.snapshot is old
    assert after.bank.names == ("green", "Grey thing", "mug")
    np.testing.assert_array_equal(after.bank.embeddings[-1], unit("f", "mug"))
    assert store.rebased(bundle(), encoder()).bank.names == after.bank.names
    after.put("cup")
    assert after.rebased(bundle(), encoder()).bank.names[-2:] == ("mug", "cup")


@pytest.mark.parametrize("live", [True, False], ids=["exchanged", "restarted"])
def test_a_class_that_cannot_be_carried_over_is_not_dropped(store: BankStore, tmp_path: Path, live: bool) -> None:
    store.put("mug")
    content = (tmp_path / BANK_FILE).read_bytes()

    def short(_):
        raise ClassNameError("class name 'mug' is too long: 9 tokens, 2 fit")

    new = bundle(which="f")
    with pytest.raises(BankError, match=r"a class that was added .* 'mug' is too long.* move the file away"):
        store.rebased(new, short) if live else (store.close(), BankStore.open(tmp_path, new, short))
    assert (tmp_path / BANK_FILE).read_bytes() == content
    again = store if live else BankStore.open(tmp_path, bundle(), encoder())
    again.put("cup")
    again.close()


def test_a_bundle_of_removed_classes_alone_is_refused(store: BankStore, tmp_path: Path) -> None:
    store.remove("red")
    with pytest.raises(BankError, match="all classes of this bundle were removed"):
        reopened(store, tmp_path, bundle(("red",)))


# ------------------------------------------------------------------------------- what is known of the bundle's classes
INFO = {
    "red": ClassInfo(aliases=("crimson",), threshold=0.5),
    "green": ClassInfo(phrases=("leaf", "grass"), background=True),
}


def informed(which: str = "e", **changes: ClassInfo) -> Bundle:
    plain = bundle(which=which)
    return dataclasses.replace(plain, bank=dataclasses.replace(plain.bank, info={**INFO, **changes}))


def test_it_survives_changes_and_restarts(tmp_path: Path) -> None:
    store = BankStore.open(tmp_path, informed(), encoder())
    assert store.bank.info == INFO
    store.put("mug", ["a mug"])
    store.put("green", ["moss"])
    at = {name: store.bank.info[name].added for name in ("mug", "green")}
    assert dict(store.bank.info) == {
        "red": INFO["red"],
        "green": ClassInfo(phrases=("moss",), background=True, added=at["green"]),
        "mug": ClassInfo(phrases=("a mug",), added=at["mug"]),
    }
    store.remove("red")
    expected = dict(store.bank.info)
    assert set(expected) == {"green", "mug"}
    store = reopened(store, tmp_path, informed())
    assert store.bank.info == expected
    store.put("green")
    store.put("red")
    assert {name: store.bank.info[name] for name in INFO} == INFO
    store.close()


@pytest.mark.parametrize("which", ["e", "f"])
def test_a_bundle_that_knows_other_things_has_its_say(store: BankStore, tmp_path: Path, which: str) -> None:
    store.put("mug")
    added = ClassInfo(added=store.bank.info["mug"].added)
    after = reopened(store, tmp_path, informed(which), which)
    assert after.bank.info == {**INFO, "mug": added}
    after.close()


def test_a_class_of_the_bundle_shows_the_phrases_it_was_made_from(tmp_path: Path) -> None:
    store = BankStore.open(tmp_path, informed(), encoder())
    own = Entry("green", "bundle", ("leaf", "grass"))
    assert (store.snapshot.find("GREEN"), store.snapshot.entries()[1]) == (own, own)
    for phrases in (None, ["green"], ["leaf", "grass"]):
        assert store.put("green", phrases) == Change(False, False, store.etag, own)
    assert not (tmp_path / BANK_FILE).exists()
    store.put("green", ["moss"])
    assert store.put("green").entry == own
    store.remove("green")
    assert store.put("green") == Change(True, True, informed().bank.content_digest, own)
    assert store.snapshot.find("green") == own
    store.close()


def test_the_last_class_that_can_be_an_answer_stays(tmp_path: Path) -> None:
    store = BankStore.open(tmp_path, informed(), encoder())  # green is background
    store.remove("Grey thing")
    with refused("conflict", "class 'red' is the last one"):
        store.remove("red")
    store.remove("green")
    with refused("conflict", "class 'red' is the last one"):
        store.remove("red")
    store.close()


def test_an_alias_of_a_class_is_no_name_for_another(tmp_path: Path) -> None:
    store = BankStore.open(tmp_path, informed(), encoder())
    with refused("conflict", "'CRIMSON' is another name of class 'red'"):
        store.put("CRIMSON")
    assert not (tmp_path / BANK_FILE).exists()
    store.remove("red")
    assert store.put("crimson").created
    before = (tmp_path / BANK_FILE).read_bytes()
    with refused("conflict", "'red' is also called 'crimson', which is class 'crimson' now; remove that class first"):
        store.put("RED")
    assert (tmp_path / BANK_FILE).read_bytes() == before
    with pytest.raises(BankError, match=r"bank\.safetensors: a class that was added does not suit .*alias 'crimson'"):
        other = informed(red=ClassInfo(), **{"Grey thing": ClassInfo(aliases=("crimson",))})
        reopened(store, tmp_path, other)
    store = BankStore.open(tmp_path, informed(), encoder())
    with pytest.raises(BankError, match=r"bank\.safetensors: a class that was added does not suit .*alias 'crimson'"):
        reopened(
            store, tmp_path, informed("f", red=ClassInfo(), **{"Grey thing": ClassInfo(aliases=("crimson",))}), "f"
        )


def test_a_bank_file_of_another_kind_says_what_to_do(tmp_path: Path) -> None:
    add(bundle().bank, ["mug"], unit("e", "mug")[np.newaxis]).save(tmp_path / BANK_FILE)
    with pytest.raises(BankError, match=r"to serve a bank of sar-bank, make it a bundle \(sar-bank freeze\)"):
        BankStore.open(tmp_path, bundle(), encoder())


# ------------------------------------------------------------------------------------------------------ broken files
@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_damaged_file_is_refused_and_left(store: BankStore, tmp_path: Path, content: bytes | None) -> None:
    store.put("mug")
    store.close()
    file = tmp_path / BANK_FILE
    content = file.read_bytes()[:-1] if content is None else content
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(BankError, match=r"bank\.safetensors: .*put a copy of it back, or move it away"):
            BankStore.open(tmp_path, bundle(), encoder())
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "no record of what was changed"),
        ({"added": [], "removed": []}, "no record"),
        ({"added": {"mug": {"phrases": [1], "at": ""}}, "removed": []}, "no record"),
        ({"added": {}, "removed": [None]}, "no record"),
        ({"added": {"red": {"phrases": ["a"], "at": ""}}, "removed": ["RED"]}, "both added and removed"),
        ({"added": {"mug": {"phrases": ["a"], "at": ""}}, "removed": []}, "not those that its record"),
    ],
)
def test_a_broken_record_is_refused(tmp_path: Path, record: dict, message: str) -> None:
    record = {**record, "bundle_bank": bundle().bank.content_digest}
    dataclasses.replace(bundle().bank, provenance=record).save(tmp_path / BANK_FILE)
    with pytest.raises(BankError, match=rf"bank\.safetensors: .*{message}.*move it away"):
        BankStore.open(tmp_path, bundle(), encoder())
    (tmp_path / BANK_FILE).unlink()
    BankStore.open(tmp_path, bundle(), encoder()).close()


def test_a_second_server_is_kept_out(store: BankStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another server"):
        BankStore.open(tmp_path, bundle(), encoder())


def test_with_a_real_bundle(bundle_path: Path, tmp_path: Path) -> None:
    classifier = Classifier.open(bundle_path)
    store = BankStore.open(tmp_path, open_bundle(bundle_path), classifier.embed_phrases)
    store.put("dark blue")
    store.put("red", ["red", "rose"])
    with pytest.raises(ClassNameError, match="tokens"):
        store.put("word " * 20)
    assert store.bank.names == (*BANK_NAMES, "dark blue")
    np.testing.assert_allclose(store.bank.embeddings[-1], classifier.embed_names(["dark blue"])[0], atol=1e-6)
    store.close()


# -------------------------------------------------------------------------------------------------- against a model
NAMES = st.sampled_from(["red", "RED ", "green", "grey  thing", "mug", "Mug", "cup", "dog", "日本 spitz", "cafe\u0301"])
BUNDLES = st.sampled_from([bundle(), bundle(("red", "mug"), "f"), bundle(("cup", "dog", "GREEN"))])


class Model(RuleBasedStateMachine):
    """A model of the store: dictionaries, to which files, restarts and reloads must make no difference."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.bundle = bundle()
        self.added: dict[str, tuple[str, ...]] = {}
        self.removed: set[str] = set()
        self.store = BankStore.open(Path(self.folder.name), self.bundle, encoder())

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
            if len(phrases) > 1 or name not in rows:
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
        elif self.added.get(key):
            del self.added[key]
        assert change == Change(
            key not in known, self.store.etag != before, self.store.etag, self.store.snapshot.find(name)
        )
        assert (known == self.expected()) == (not change.changed)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        key = " ".join(unicodedata.normalize("NFC", name).split()).lower()
        known = self.expected()
        if key in known and len(known) > 1:
            self.store.remove(name, self.store.etag)
            self.added.pop(key, None)
            if key in self.bundle_keys():
                self.removed.add(key)
        else:
            with refused("conflict" if key in known else "not-found"):
                self.store.remove(name)

    @rule()
    def restart(self) -> None:
        before = rows_of(self.store), listed(self.store)
        self.store.close()
        self.store = BankStore.open(Path(self.folder.name), self.bundle, encoder(self.which))
        assert (rows_of(self.store), listed(self.store)) == before

    @precondition(lambda self: self.added)
    @rule(new=BUNDLES, live=st.booleans())
    def exchange(self, new: Bundle, live: bool) -> None:
        old, self.bundle = self.bundle, new
        if not self.expected_names():
            self.bundle = old
            return
        if not live:
            self.store.close()
        open_ = self.store.rebased if live else functools.partial(BankStore.open, Path(self.folder.name))
        self.store = open_(new, encoder(self.which))

    def expected_names(self) -> set[str]:
        return (self.bundle_keys() - self.removed) | set(self.added)

    @invariant()
    def same(self) -> None:
        assert {name.lower(): row for name, row in rows_of(self.store).items()} == self.expected()
        assert len(self.store.bank.names) == len(self.expected_names())
        assert self.store.snapshot.entries() == tuple(map(self.store.snapshot.find, self.store.bank.names))
        assert self.store.snapshot.added == sum(entry.origin == "added" for entry in self.store.snapshot.entries())

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=15, deadline=None)
