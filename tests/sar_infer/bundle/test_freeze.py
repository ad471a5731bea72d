from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from support.banks import content, learning, photo_set
from support.bundles import BANK_NAMES, ENCODER_DIGEST, example_head, name_rows, write_bundle

from sar_infer import Classifier, __version__
from sar_infer.bank import ClassBank, add, fit, learn, remove, rename, set_class
from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.freeze import MEASURED, freeze
from sar_infer.bundle.manifest import BANK, CARD, HEAD, MANIFEST, Calibration, Quality
from sar_infer.errors import BankError, InputError

CALIBRATION = {
    "temperature": 2.0,
    "thresholds": {"score": 0.5},
    "conformal": {"0.9": 0.1},
    "calibrated": ("red", "green"),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "old", head=example_head(("red", "green")), **CALIBRATION))


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
    assert f"made from bundle {bundle.manifest.digest} (2000-01-01T00:00:00Z, tests)" in note
    assert note.endswith("classes since: 1 added, 1 removed, 1 changed")
    made = manifest.provenance
    assert (made.command, made.versions["sar-clip"]) == ("sar-bundle freeze", __version__)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made.created)


def test_head_and_calibration_stay_with_their_classes(bundle: Bundle, tmp_path: Path) -> None:
    """Settings of a class change nothing of that."""
    bank = set_class(remove(bundle.bank, ["blue"]), "green", threshold=0.5)
    manifest = freeze(bundle, bank, tmp_path / "new")
    for field, value in CALIBRATION.items():
        assert getattr(manifest, field) == value
    assert open_bundle(tmp_path / "new").head.names == ("red", "green")
    assert manifest.quality.notes[-1].endswith("1 removed, 1 changed")
    unchanged = freeze(bundle, bundle.bank, tmp_path / "same")
    assert unchanged.quality.notes[-1].endswith("classes since: no changes")


@pytest.mark.parametrize(
    "edit",
    [
        lambda bank: remove(bank, ["green"]),
        lambda bank: add(bank, {"green": ("deep green",)}, name_rows(["deep green"])),
    ],
    ids=["removed", "embedded anew"],
)
def test_head_and_calibration_go_with_a_class(bundle: Bundle, tmp_path: Path, edit) -> None:
    manifest = freeze(bundle, edit(bundle.bank), tmp_path / "new")
    opened = open_bundle(tmp_path / "new")
    assert (opened.head, manifest.head, HEAD in manifest.files) == (None, None, False)
    assert (manifest.temperature, manifest.thresholds, manifest.conformal) == (None, {}, {})
    assert (manifest.calibrated, manifest.quality.calibration) == ((), None)
    assert manifest.quality.notes[-1].startswith("the class head was left out")
    answers = Classifier(opened).classify(np.zeros((40, 40, 3), np.uint8))
    assert not any(prediction.calibration == "held-out" for prediction in answers[0].predictions)
    assert "Scores are not calibrated" in (tmp_path / "new" / CARD).read_text()


def test_a_class_that_was_renamed_keeps_head_and_calibration(bundle: Bundle, tmp_path: Path) -> None:
    manifest = freeze(bundle, rename(bundle.bank, "green", "verdant"), tmp_path / "new")
    opened = open_bundle(tmp_path / "new")
    assert (opened.head.names, manifest.calibrated) == (("red", "verdant"), ("red", "verdant"))
    np.testing.assert_array_equal(opened.head.weight, bundle.head.weight)
    assert (manifest.temperature, manifest.thresholds) == (CALIBRATION["temperature"], CALIBRATION["thresholds"])
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    (before,) = Classifier(bundle).classify(image, ["red", "green"], True)
    (after,) = Classifier(opened).classify(image, ["red", "verdant"], True)
    assert (after.branch, before.branch) == ("head+text", "head+text")
    labels = {"red": "red", "green": "verdant"}
    assert {labels[one.label]: one.score for one in before.predictions} == {
        one.label: one.score for one in after.predictions
    }


@pytest.mark.parametrize(
    "edit",
    [lambda bank: remove(bank, ["green"]), lambda bank: set_class(bank, "green", background=True)],
    ids=["removed", "background"],
)
def test_without_a_head_the_temperature_stays(tmp_path: Path, edit) -> None:
    measured = Calibration("photos", 10, 10, False, 0.2, 0.1, 1.0, 1.0, {"0.9": 0.91}, {"0.9": 1.2}, {"score": 0.875})
    old = open_bundle(write_bundle(tmp_path / "old", quality=Quality(calibration=measured), **CALIBRATION))
    manifest = freeze(old, edit(old.bank), tmp_path / "new")
    assert (manifest.temperature, manifest.thresholds, manifest.conformal) == (2.0, {}, {})
    assert manifest.calibrated == ("red",)
    assert manifest.quality.notes[-1].endswith("1 of the 2 calibrated classes were removed or changed")
    card = (tmp_path / "new" / CARD).read_text()
    assert "Expected calibration error" in card
    assert "0.910 reached" not in card
    assert "AUROC" not in card


def test_the_manifest_says_which_bank_was_measured(bundle: Bundle, tmp_path: Path) -> None:
    first = freeze(bundle, with_owl(bundle.bank), tmp_path / "new")
    opened = open_bundle(tmp_path / "new")
    second = freeze(opened, remove(opened.bank, ["red"]), tmp_path / "newer")
    expected = {"content_digest": bundle.bank.content_digest, "calibrated": 2}
    assert first.quality.tables[MEASURED] == second.quality.tables[MEASURED] == expected


def test_the_frozen_bundle_can_be_frozen_again_and_replaced(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "new"
    first = freeze(bundle, with_owl(bundle.bank), out)
    with pytest.raises(InputError, match="exists"):
        freeze(bundle, bundle.bank, out)
    opened = open_bundle(out)
    second = freeze(opened, remove(opened.bank, ["red"]), out, overwrite=True)
    assert second.quality.notes[-2].startswith(f"made from bundle {first.digest}")
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
    assert (manifest.head, manifest.calibrated) == (HEAD, bundle.manifest.calibrated)
    corrected = add(bank, [], np.empty((0, dim), np.float32), photos={"red": photo_set("d", dim=dim)})
    changed = freeze(bundle, corrected, tmp_path / "changed")
    assert (changed.head, changed.thresholds, changed.calibrated) == (None, {}, ())


def test_statistics_and_learned_sums_stay_and_what_was_calibrated_without_them_goes(
    bundle: Bundle, tmp_path: Path
) -> None:
    dim = bundle.manifest.embed_dim
    bank = fit(with_owl(bundle.bank), {"precision": np.eye(dim, dtype=np.float32)})
    bank = rename(learn(bank, learning({"owl": "seen", "red": "again"}, dim=dim)), "owl", "eagle owl")
    manifest = freeze(bundle, bank, tmp_path / "new", command="sar-bundle freeze")
    opened = open_bundle(tmp_path / "new").bank
    assert content(opened)[-2:] == content(bank)[-2:]
    assert "of another class model" in manifest.quality.notes[2]
    assert (manifest.thresholds, manifest.calibrated) == ({}, ())
    more = add(opened, ["emu"], name_rows(["emu"]))  # the bundle's own is where its log begins
    more.save(tmp_path / "b.safetensors")
    again = ClassBank.load(tmp_path / "b.safetensors", base=opened)
    assert (content(again), again.content_digest) == (content(more), more.content_digest)
    assert again.learned is not None
    assert again.learned.stale
