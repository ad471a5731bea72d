"""A bank file that is a link, which a deployment turns from one bank to another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.bundles import write_bundle

from sar_infer import ClassBank, Classifier
from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import open_bundle
from sar_infer.server.bank.store import BankStore
from sar_infer.text.names import Phrases

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links")


def test_a_change_is_written_to_the_bank_it_was_made_in(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    first, second, link = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "link"))
    classifier = Classifier.open(folder, device="cpu")
    for file in (first, second):
        BankStore.open(file, open_bundle(folder), classifier.embed_phrases).put(f"class of {file.stem}")
    link.symlink_to(first)
    before = second.read_bytes()

    def embed(phrases: Phrases) -> Floats:
        link.unlink()
        link.symlink_to(second)
        return classifier.embed_phrases(phrases)

    store = BankStore.open(link, open_bundle(folder), embed)
    store.put("mug")
    assert second.read_bytes() == before
    assert {"class of first", "mug"} < set(ClassBank.load(first).names)
    store.look()
    assert "class of second" in store.bank.names
    assert "mug" not in store.bank.names
