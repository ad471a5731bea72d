from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.bundles import write_bundle

from sar_infer.artefact.bundle import open_bundle
from sar_infer.artefact.card import card
from sar_infer.artefact.manifest import CARD, MANIFEST
from sar_infer.artefact.sealing import seal
from sar_infer.errors import BundleError


def test_what_is_sealed_opens_with_its_card(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "b", temperature=1.5))
    assert not (bundle.path / CARD).exists()
    manifest = seal(bundle.path, bundle.manifest, bundle.bank)
    again = open_bundle(bundle.path)
    assert again.manifest == manifest
    assert manifest.temperature == 1.5
    assert (bundle.path / CARD).read_text(encoding="utf-8") == card(manifest, bundle.bank)
    assert CARD in manifest.files
    assert MANIFEST not in manifest.files


def test_a_changed_card_is_noticed(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "b"))
    seal(bundle.path, bundle.manifest, bundle.bank)
    (bundle.path / CARD).write_text("better than it is", encoding="utf-8")
    with pytest.raises(BundleError, match=r"model_card.md: damaged"):
        open_bundle(bundle.path)


def test_files_shared_with_another_bundle_are_not_written_through(tmp_path: Path) -> None:
    """A derived bundle is made of hard links."""
    first = open_bundle(write_bundle(tmp_path / "first"))
    seal(first.path, first.manifest, first.bank)
    (tmp_path / "second").mkdir()
    for path in first.path.iterdir():
        os.link(path, tmp_path / "second" / path.name)
    before = (first.path / CARD).read_bytes(), (first.path / MANIFEST).read_bytes()
    seal(tmp_path / "second", open_bundle(write_bundle(tmp_path / "third", method="kgcoop")).manifest, first.bank)
    assert before == ((first.path / CARD).read_bytes(), (first.path / MANIFEST).read_bytes())
    assert open_bundle(first.path).manifest.method == "coop"
    assert open_bundle(tmp_path / "second").manifest.method == "kgcoop"
