from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from support.banks import content, learning, photo_set
from support.bundles import BANK_NAMES, ENCODER_DIGEST, name_rows, write_bundle
from support.trained import example_model, example_trained

from sar_infer import Classifier, __version__
from sar_infer.bank import ClassBank, add, fit, learn, remove, rename, set_class
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.bundle.manifest import BANK, CARD, MANIFEST
from sar_infer.errors import BankError


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "old"))


def with_owl(bank: ClassBank) -> ClassBank:
    return set_class(add(bank, ["owl"], name_rows(["owl"])), "owl", aliases=("hooter",))


def test_it_opens_and_classifies(bundle: Bundle, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    bank = rename(remove(with_owl(bundle.bank), ["blue"]), "grey thing", "grey")
    manifest = freeze(bundle, bank, tmp_path / "new", command="sar-bundle freeze")
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before
    opened = open_bundle(tmp_path / "new")
    assert opened.manifest == manifest
    assert (opened.bank.names, opened.bank.entry("owl").aliases, opened.bank.history) == (bank.names, ("hooter",), ())
    np.testing.assert_array_equal(opened.bank.embeddings, bank.embeddings)
    result = Classifier(opened).classify(np.zeros((40, 40, 3), np.uint8), ["Hooter"], only=True)
    assert [(p.label, p.source) for p in result.predictions] == [("Hooter", "bank")]
    assert manifest.quality.metrics == bundle.manifest.quality.metrics
    first, note = manifest.quality.notes
    assert first == "a test"
    assert f"made from bundle {bundle.manifest.digest} (2000-01-01T00:00:00Z, tests) of 4 classes" in note
    made = manifest.provenance
    assert (made.command, made.versions["sar-clip"]) == ("sar-bundle freeze", __version__)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made.created)
    again = freeze(opened, opened.bank, tmp_path / "newer")
    assert again.quality.notes[2].startswith(f"made from bundle {manifest.digest}")
    assert {CARD, MANIFEST, *again.files} == {path.name for path in (tmp_path / "newer").iterdir()}


@pytest.mark.parametrize("links", [True, False])
def test_large_files_are_shared_where_that_can_be_done(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr("os.link", refuse)
    freeze(bundle, bundle.bank, tmp_path / "new")
    open_bundle(tmp_path / "new")
    for name, shared in (("name_encoder.onnx", links), (BANK, False)):
        assert (bundle.path / name).samefile(tmp_path / "new" / name) == shared


def test_banks_that_do_not_fit(bundle: Bundle, tmp_path: Path) -> None:
    foreign = ClassBank.of(bundle.bank.names, bundle.bank.embeddings, "f" * 64)
    with pytest.raises(BankError, match="f" * 64):
        freeze(bundle, foreign, tmp_path / "new")
    with pytest.raises(BankError, match="rows of 2"):
        freeze(bundle, ClassBank.of(("a",), np.eye(1, 2, dtype=np.float32), ENCODER_DIGEST), tmp_path / "new")
    empty = remove(bundle.bank, list(bundle.bank.names))
    for bank in (
        empty,
        functools.reduce(lambda bank, name: set_class(bank, name, background=True), BANK_NAMES, bundle.bank),
    ):
        with pytest.raises(BankError, match="no class"):
            freeze(bundle, bank, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_photos_come_along_without_their_embeddings(bundle: Bundle, tmp_path: Path) -> None:
    dim = bundle.manifest.embed_dim
    photos = {"owl": photo_set("a", "b", dim=dim), "SKU-1": photo_set("c", dim=dim, photos_only=True)}
    bank = add(bundle.bank, ["owl", "SKU-1"], name_rows(["owl", "SKU-1"]), photos=photos)
    freeze(bundle, bank, tmp_path / "new")
    opened = open_bundle(tmp_path / "new").bank
    for name, after in opened.photos.items():
        before = bank.photos[name]
        assert (after.total.tobytes(), after.digest_set) == (before.total.tobytes(), before.digest_set)
        assert after.photos_only == before.photos_only
        assert len(after.rows) == 0  # who gets the bundle gets no embedding of a photo


def test_class_models_trained_classes_and_learned_sums_stay(bundle: Bundle, tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "trained", trained=example_trained()))
    bank = fit(rename(with_owl(bundle.bank), "green", "verdant"), example_model(seed=3).tensors())
    bank = rename(learn(bank, learning(bank, {"owl": "seen", "red": "again"})), "owl", "eagle owl")
    freeze(bundle, bank, tmp_path / "new", command="sar-bundle freeze")
    frozen = open_bundle(tmp_path / "new")
    opened = frozen.bank
    assert frozen.trained is not None and frozen.trained.names == ("red", "verdant", "blue")
    rows = name_rows(["a", "b"])
    scores = [one.logits(rows, one.class_set()) for one in (Classifier(bundle, bank=bank), Classifier(frozen))]
    np.testing.assert_allclose(*scores, atol=1e-3)
    assert content(opened)[-2:] == content(bank)[-2:]
    more = add(opened, ["emu"], name_rows(["emu"]))  # the bundle's own is where its log begins
    more.save(tmp_path / "b.safetensors")
    again = ClassBank.load(tmp_path / "b.safetensors", base=opened)
    assert (content(again), again.content_digest) == (content(more), more.content_digest)
    assert again.learned is not None
    assert again.learned.stale
