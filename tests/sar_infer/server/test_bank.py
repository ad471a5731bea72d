"""The bank file of a running server: changes under its lock, damage, and looks that are never stale."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bundles import name_rows, write_bundle
from support.disk import fill_disk

from sar_infer import Classifier
from sar_infer.bank import ClassBank, add
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.banks import Banks
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Settings
from sar_infer.storage.files import owned


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_bundle(tmp_path_factory.mktemp("store") / "bundle"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "b.safetensors"


class Store:
    """The bank of a server's ``--bank``."""

    def __init__(self, file: Path, bundle: Bundle) -> None:
        self.banks = Banks(Settings(bank=file, key="k"), Classifier(bundle, device="cpu"), Metrics())

    def look(self) -> ClassBank:
        asyncio.run(self.banks.look())
        return self.banks.bank

    def change(self, edit: Callable[[ClassBank], ClassBank]) -> ClassBank:
        return self.banks._changed(None, lambda bank: (edit(bank), None))[0]


@pytest.fixture
def store(bundle: Bundle, file: Path) -> Store:
    return Store(file, bundle)


def adding(name: str) -> Callable[[ClassBank], ClassBank]:
    return lambda bank: add(bank, [name], name_rows([name]), by="test")


def refused(code: str, match: str) -> pytest.RaisesExc:
    return pytest.raises(Problem, match=match, check=lambda error: error.code == code)


def test_other_writers_and_damage(store: Store, bundle: Bundle, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    adding("owl")(bundle.bank).save(file)
    assert "owl" in store.look().names
    sound = file.read_bytes()
    file.write_bytes(sound[:-8])
    for _ in range(2):
        assert "owl" in store.look().names
    assert store.banks.main.fault and caplog.text.count("cannot be used") == 1
    with refused("conflict", "cannot be used") as raised:
        store.change(adding("cat"))
    assert str(file.parent) not in raised.value.detail
    file.write_bytes(sound)
    store.change(adding("cat"))
    assert (store.look().names[-2:], store.banks.main.fault) == (("owl", "cat"), None)
    file.unlink()
    assert "owl" in store.look().names


def test_a_change_is_on_disk_or_was_not_made(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.change(adding("mug"))
    monkeypatch.setattr(bank_file, "WAIT", 0.05)
    with owned(file), refused("overloaded", "another process is changing the bank file") as raised:
        store.change(adding("cup"))
    assert str(file.parent) not in raised.value.detail
    before = file.read_bytes()
    fill_disk(monkeypatch)
    with refused("not-stored", "was not made") as raised:
        store.change(adding("cup"))
    assert str(file.parent) not in raised.value.detail
    assert (file.read_bytes(), "cup" in store.look().names) == (before, False)


def test_a_look_sees_what_was_confirmed_before_it(
    store: Store, bundle: Bundle, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while this store takes up what another process wrote, however long that takes."""
    slow, read = threading.Event(), bank_file.read

    def slowly(*arguments: Any, **options: Any) -> ClassBank:
        bank = read(*arguments, **options)
        if threading.current_thread().name == "writer":
            slow.set()
            time.sleep(0.3)
        return bank

    Store(file, bundle).change(adding("confirmed elsewhere"))
    monkeypatch.setattr(bank_file, "read", slowly)
    writer = threading.Thread(target=lambda: store.change(adding("mine")), name="writer")
    writer.start()
    slow.wait()
    assert "confirmed elsewhere" in store.look().names
    writer.join()
    assert "mine" in store.look().names


def test_two_servers_on_one_file_lose_nothing(bundle: Bundle, file: Path) -> None:
    stores = [Store(file, bundle), Store(file, bundle)]
    missing: list[str] = []

    def put(mine: Store, other: Store, numbers: range) -> None:
        for name in map("class {}".format, numbers):
            mine.change(adding(name))
            missing.extend([name] * (name not in other.look().names))

    threads = [
        threading.Thread(target=put, args=(stores[i], stores[1 - i], range(20 * i, 20 * i + 20))) for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert {f"class {number}" for number in range(40)} <= {*stores[0].look().names}
    assert stores[0].look().content_digest == stores[1].look().content_digest
