"""The bank of a running server: use cases of the bank under a lock, If-Match, and looks that are never stale."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.banks import photo_set
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, name_rows, write_bundle
from support.disk import fill_disk

from sar_infer import Classifier
from sar_infer.bank import ClassBank, add, set_class
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.errors import BankError, InputError
from sar_infer.server.bank import store as store_module
from sar_infer.server.bank.snapshot import Shown, Snapshot
from sar_infer.server.bank.store import BankStore, NewPhotos
from sar_infer.server.problems import Problem
from sar_infer.storage.files import owned


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_bundle(tmp_path_factory.mktemp("store") / "bundle"))


@pytest.fixture
def opened(bundle: Bundle, tmp_path: Path) -> Callable[[], BankStore]:
    classifier = Classifier(bundle, device="cpu")
    return lambda: BankStore(tmp_path / "b.safetensors", bundle, classifier.embed_phrases)


@pytest.fixture
def store(opened: Callable[[], BankStore]) -> BankStore:
    return opened()


def refused(code: str, match: str | None = None) -> pytest.RaisesExc:
    return pytest.raises(Problem, match=match, check=lambda error: error.code == code)


def photos(*labels: str, only: bool = False, **more: object) -> NewPhotos:
    named = {photo_set(label).digests[0]: label for label in labels}
    return NewPhotos(photo_set(*labels, photos_only=only, dim=DIM), named, ENCODER_DIGEST, **more)  # type: ignore[arg-type]


def test_put_means_what_the_command_means(store: BankStore, opened: Callable[[], BankStore]) -> None:
    done = store.put("mug", ["cup", "tea mug"])
    assert (done.created, done.entry) == (True, Shown("mug", "added", ("cup", "tea mug")))
    assert (store.put("Mug", ["cup", "tea mug"]).created, store.bank.log.last) == (False, 1)  # nothing to change
    assert store.put("red").entry == Shown("red", "bundle", ("red",))
    assert store.put("red", ["scarlet"]).entry.origin == "added"
    np.testing.assert_allclose(store.bank.entry("red").embedding, name_rows(["scarlet"])[0], atol=1e-6)
    store.remove("green")
    assert [entry.name for entry in store.snapshot.removed] == ["green"]
    store.put("green")  # a class that was removed and comes again is a new class
    assert store.bank.names == ("red", "blue", "grey thing", "mug", "green")
    assert store.snapshot.removed == ()
    assert {step.by for step in store.bank.history} == {"sar-serve"}
    assert opened().snapshot.etag == store.snapshot.etag


def test_photos_join_a_class_and_make_one(store: BankStore) -> None:
    done = store.put("red", new=photos("p", "q"))
    assert (done.created, done.entry.photos, done.repeats) == (False, 2, 0)
    assert store.put("RED", new=photos("q", "r")).repeats == 1
    np.testing.assert_array_equal(store.bank.entry("red").embedding, store.snapshot.base.entry("red").embedding)
    done = store.put("SKU-1", new=photos("s", only=True))
    assert (done.created, done.entry.photos_only, done.findings) == (True, True, ())
    with refused("not-found", "only PUT adds a class"):
        store.put("owl", new=photos("t", create=False))
    with refused("overloaded"):
        store.put("red", new=dataclasses.replace(photos("t"), encoder="f" * 64))


def test_conditions_and_refusals(store: BankStore) -> None:
    etag = store.snapshot.etag
    store.put("mug", if_match=f'"{etag}"')
    with refused("precondition-failed", "classes were changed"):
        store.put("cup", if_match=etag)
    with refused("precondition-failed", "no such class"):
        store.put("cup", if_match="*")
    store.put("mug", if_match="*")
    with refused("precondition-failed", "exists already"):
        store.put("MUG", only_add=True)
    with refused("conflict", "strict"):
        store.put("m-u-g", strict=True)
    assert store.put("m-u-g").findings[0].kind == "duplicate"
    with refused("not-found", "did you mean"):
        store.remove("mugg")
    for name in store.bank.names[1:]:
        store.remove(name)
    with refused("conflict", "the last one"):
        store.remove("red")
    with refused("precondition-failed", "is not the latest"):
        store.rollback(steps=1, latest=1)
    step, snapshot = store.rollback(to=1)
    assert step is not None
    assert (step.to, snapshot.bank.names) == (1, (*BANK_NAMES, "mug"))
    assert store.rollback(to=1)[0] is None
    with pytest.raises(InputError):
        store.rollback(steps=9)


def test_an_alias_is_no_new_class(store: BankStore, bundle: Bundle) -> None:
    file = store._file.path  # type: ignore[union-attr]
    set_class(bundle.bank, "red", aliases=("crimson",)).save(file)
    store.look()
    with refused("conflict", "'crimson' is another name of class 'red'"):
        store.put("crimson")


def test_lists(store: BankStore) -> None:
    for name in ("mug", "Mug rug", "rug"):
        store.put(name)
    assert [shown.name for shown in store.snapshot.page("MUG", 0, 9)[0]] == ["mug", "Mug rug"]
    assert [shown.name for shown in store.snapshot.page("", 0, 9, like="ug r")[0]] == ["Mug rug"]
    assert [len(side) if isinstance(side, list) else side for side in store.snapshot.page("", 1, 2)] == [2, 7]


def test_other_writers_and_damage(store: BankStore, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    file = store._file.path  # type: ignore[union-attr]
    add(bundle.bank, ["owl"], name_rows(["owl"])).save(file)
    assert store.look().find("owl") is not None
    sound = file.read_bytes()
    file.write_bytes(sound[:-8])
    for _ in range(2):
        assert store.look().find("owl") is not None
    assert (store.usable, caplog.text.count("cannot be used")) == (False, 1)
    with refused("conflict", "cannot be used"):
        store.put("cat")
    file.write_bytes(sound)
    store.put("cat")
    assert (store.usable, store.bank.names[-2:]) == (True, ("owl", "cat"))
    file.unlink()
    assert store.look().find("owl") is not None


def test_a_change_is_on_disk_or_was_not_made(store: BankStore, monkeypatch: pytest.MonkeyPatch) -> None:
    file = store._file.path  # type: ignore[union-attr]
    store.put("mug")
    monkeypatch.setattr(bank_file, "WAIT", 0.05)
    with owned(file), refused("overloaded", "another process is changing it"):
        store.put("cup")
    before = file.read_bytes()
    fill_disk(monkeypatch)
    with refused("not-stored", "was not made"):
        store.put("cup")
    assert (file.read_bytes(), store.look().find("cup")) == (before, None)


def test_a_look_sees_what_was_confirmed_before_it(
    store: BankStore, opened: Callable[[], BankStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while this store takes up what another process wrote, however long that takes."""
    other, slow, load = opened(), threading.Event(), ClassBank.load

    def slowly(*arguments: object) -> ClassBank:
        bank = load(*arguments)  # type: ignore[arg-type]
        if threading.current_thread().name == "writer":
            slow.set()
            time.sleep(0.3)
        return bank

    other.put("confirmed elsewhere")
    monkeypatch.setattr(ClassBank, "load", slowly)
    writer = threading.Thread(target=lambda: store.put("mine"), name="writer")
    writer.start()
    slow.wait()
    assert store.look().find("confirmed elsewhere") is not None
    writer.join()
    assert store.look().find("mine") is not None


def test_many_threads_and_two_stores_lose_nothing(store: BankStore, opened: Callable[[], BankStore]) -> None:
    stores = [store, opened()]

    def put(number: int) -> bool:
        name = f"class {number}"
        stores[number % 2].put(name)
        return stores[(number + 1) % 2].look().find(name) is not None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put, range(40)))
    assert {f"class {number}" for number in range(40)} <= {*store.look().bank.names}
    assert store.snapshot.etag == opened().snapshot.etag


def test_files_that_a_server_refuses(bundle: Bundle, tmp_path: Path) -> None:
    def start(file: Path, writable: bool = True) -> BankStore:
        return BankStore(file, bundle, lambda texts: name_rows([text for (text,) in texts]), writable=writable)

    with pytest.raises(InputError, match="no such folder"):
        start(tmp_path / "absent" / "b.safetensors")
    ClassBank.of(["a"], name_rows(["a"]), "f" * 64).save(tmp_path / "b.safetensors")
    with pytest.raises(BankError, match=r"another encoder .*sar-bank carry"):
        start(tmp_path / "b.safetensors")
    reading = start(tmp_path / "none.safetensors", writable=False)
    with refused("writes-disabled"):
        reading.put("mug")
    assert isinstance(reading.snapshot, Snapshot)
    assert store_module.SEARCHED == 10_000
