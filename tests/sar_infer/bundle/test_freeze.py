from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from support.banks import content, learning, photo_set
from support.bundles import BANK_NAMES, ENCODER_DIGEST, name_rows, write_bundle

from sar_infer import Classifier, __version__
from sar_infer.bank import ClassBank, add, fit, learn, remove, rename, set_class
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.bundle.manifest import BANK, CARD, MANIFEST
from sar_infer.errors import BankError, InputError

CALIBRATION = {
    "temperature": 2.0,
    "thresholds": {"score": 0.5},
    "conformal": {"0.9": 0.1},
    "calibrated": ("red", "green"),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "old", **CALIBRATION))


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
    (result,) = Classifier(opened).classify(np.zeros((40, 40, 3), np.uint8), ["Hooter"], only=True)
    assert [(p.label, p.source) for p in result.predictions] == [("Hooter", "bank")]
    assert manifest.quality.metrics == bundle.manifest.quality.metrics
    first, note = manifest.quality.notes
    assert first == "a test"
    assert f"made from bundle {bundle.manifest.digest} (2000-01-01T00:00:00Z, tests) of 4 classes" in note
    made = manifest.provenance
    assert (made.command, made.versions["sar-clip"]) == ("sar-bundle freeze", __version__)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made.created)


def test_a_calibration_stays_with_its_classes(bundle: Bundle, tmp_path: Path) -> None:
    """A renamed class and settings of a class change nothing of that."""
    bank = set_class(remove(bundle.bank, ["blue"]), "green", threshold=0.5)
    manifest = freeze(bundle, rename(bank, "green", "verdant"), tmp_path / "new")
    for field, value in CALIBRATION.items():
        assert getattr(manifest, field) == (("red", "verdant") if field == "calibrated" else value)
    assert len(manifest.quality.notes) == 2


@pytest.mark.parametrize(
    "edit",
    [
        lambda bank: remove(bank, ["green"]),
        lambda bank: add(bank, {"green": ("deep green",)}, name_rows(["deep green"])),
        lambda bank: set_class(bank, "green", background=True),
    ],
    ids=["removed", "embedded anew", "background"],
)
def test_thresholds_and_sets_go_with_a_class_and_the_temperature_stays(bundle: Bundle, tmp_path: Path, edit) -> None:
    manifest = freeze(bundle, edit(bundle.bank), tmp_path / "new")
    assert (manifest.temperature, manifest.thresholds, manifest.conformal) == (2.0, {}, {})
    assert manifest.calibrated == ("red",)
    assert manifest.quality.notes[-1].startswith("thresholds and conformal sets were left out")


def test_the_frozen_bundle_can_be_frozen_again_and_replaced(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "new"
    first = freeze(bundle, with_owl(bundle.bank), out)
    with pytest.raises(InputError, match="exists"):
        freeze(bundle, bundle.bank, out)
    opened = open_bundle(out)
    second = freeze(opened, remove(opened.bank, ["red"]), out, overwrite=True)
    assert second.quality.notes[2].startswith(f"made from bundle {first.digest}")
    assert open_bundle(out).bank.names == ("green", "blue", "grey thing", "owl")
    assert (out / CARD).is_file()
    assert set(second.files) | {MANIFEST} == {path.name for path in out.iterdir()}


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


def test_photos_come_along_and_what_was_calibrated_without_them_goes(bundle: Bundle, tmp_path: Path) -> None:
    dim = bundle.manifest.embed_dim
    photos = {"owl": photo_set("a", "b", dim=dim), "SKU-1": photo_set("c", dim=dim, photos_only=True)}
    bank = add(bundle.bank, ["owl", "SKU-1"], name_rows(["owl", "SKU-1"]), photos=photos)
    manifest = freeze(bundle, bank, tmp_path / "new")
    opened = open_bundle(tmp_path / "new").bank
    for name, after in opened.photos.items():
        before = bank.photos[name]
        assert (after.mean.tobytes(), after.digest_set) == (before.mean.tobytes(), before.digest_set)
        assert after.photos_only == before.photos_only
        assert len(after.rows) == 0  # who gets the bundle gets no embedding of a photo
    assert manifest.calibrated == bundle.manifest.calibrated
    corrected = add(bank, [], np.empty((0, dim), np.float32), photos={"red": photo_set("d", dim=dim)})
    changed = freeze(bundle, corrected, tmp_path / "changed")
    assert (changed.thresholds, changed.calibrated) == ({}, ("green",))


def test_statistics_and_learned_sums_stay_and_what_was_calibrated_without_them_goes(
    bundle: Bundle, tmp_path: Path
) -> None:
    dim = bundle.manifest.embed_dim
    bank = fit(with_owl(bundle.bank), {"precision": np.eye(dim, dtype=np.float32)})
    bank = rename(learn(bank, learning({"owl": "seen", "red": "again"}, dim=dim)), "owl", "eagle owl")
    manifest = freeze(bundle, bank, tmp_path / "new", command="sar-bundle freeze")
    opened = open_bundle(tmp_path / "new").bank
    assert content(opened)[-2:] == content(bank)[-2:]
    assert (manifest.thresholds, manifest.calibrated) == ({}, ())
    more = add(opened, ["emu"], name_rows(["emu"]))  # the bundle's own is where its log begins
    more.save(tmp_path / "b.safetensors")
    again = ClassBank.load(tmp_path / "b.safetensors", base=opened)
    assert (content(again), again.content_digest) == (content(more), more.content_digest)
    assert again.learned is not None
    assert again.learned.stale
