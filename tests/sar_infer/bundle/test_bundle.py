"""Opening a bundle: every part opens, and whatever is damaged, missing or does not fit is named in one line."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, SPEC, name_rows, reseal, write_bundle
from support.precisions import add_precision, variant
from support.sound import change
from support.trained import example_trained

import sar_infer.bundle.bundle
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import default_bundle, open_bundle
from sar_infer.bundle.manifest import BANK, CLASS_MODEL, IMAGE_ENCODER, MANIFEST, NAME_ENCODER, TOKENIZER, file_entry
from sar_infer.errors import BundleError

REQUIRED = (IMAGE_ENCODER, NAME_ENCODER, BANK, TOKENIZER)
SMALLER = "image_encoder.int8.onnx"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A bundle with every part that a bundle may have."""
    path = write_bundle(tmp_path / "whole", trained=example_trained())
    return add_precision(path)


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(path)
    assert "\n" not in str(caught.value)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_every_part_opens(whole: Path, tmp_path: Path) -> None:
    bundle = open_bundle(whole)
    assert bundle.trained is not None
    assert (bundle.bank.names, bundle.trained.names) == (BANK_NAMES, BANK_NAMES[:3])
    assert bundle.manifest.precisions == {"int8": variant(SMALLER)}
    assert bundle.tokenizer.encode("dog") == [1929]
    (whole / "README.md").write_text("further files may be listed")
    change(whole)
    (tmp_path / "link").symlink_to(whole)
    assert "README.md" in open_bundle(tmp_path / "link").manifest.files


@pytest.mark.parametrize("name", [*REQUIRED, SMALLER, CLASS_MODEL, MANIFEST])
def test_damage_is_noticed_in_every_file(whole: Path, name: str) -> None:
    path = whole / name
    size = path.stat().st_size
    for position in (0, size // 3, size - 1):
        flip(path, position)
        refused(whole, name)
        flip(path, position)
    outside = shutil.move(path, whole.parent / "outside")
    refused(whole, f"{name}: missing" if name != MANIFEST else MANIFEST)
    path.symlink_to(outside)
    refused(whole, f"{name}: leads out")
    path.unlink()
    path.symlink_to(name)
    refused(whole, name)
    path.unlink()
    path.mkdir()
    refused(whole, name)


@pytest.mark.parametrize("name", [*REQUIRED, SMALLER])
def test_a_file_that_has_to_be_listed(whole: Path, name: str) -> None:
    (whole / name).unlink()
    change(whole)
    refused(whole, f"list '?{name}")


@pytest.mark.parametrize("name", ["extra.txt", ".hidden"])
def test_another_file_or_folder(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).write_text("x")
    refused(bundle_copy, f"{name}: not listed")
    (bundle_copy / name).unlink()
    (bundle_copy / name).mkdir()
    refused(bundle_copy, f"{name}: not listed")


def test_a_listed_name_that_is_a_path(bundle_copy: Path) -> None:
    (bundle_copy.parent / "outside").write_text("x")
    reseal(bundle_copy, files={name: file_entry(bundle_copy / name) for name in (*REQUIRED, "../outside")})
    refused(bundle_copy, r"\.\./outside")


def save_bank(folder: Path, dim: int = DIM, encoder: str = ENCODER_DIGEST) -> None:
    ClassBank.of(("a", "b"), np.eye(2, dim, dtype=np.float32), encoder).save(folder / BANK)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "bank of another encoder": (lambda path: save_bank(path, encoder="f" * 64), f"{BANK}: .*ffffffff"),
    "bank of another width": (lambda path: save_bank(path, DIM + 1), f"{BANK}: rows of 9, expected 8"),
    "statistics of another width": (lambda path: example_trained(dim=9).save(path / CLASS_MODEL), CLASS_MODEL),
    "statistics of another class": (lambda path: example_trained(("red", "o")).save(path / CLASS_MODEL), CLASS_MODEL),
}


@pytest.mark.parametrize(("spoil", "message"), UNFIT.values(), ids=UNFIT)
def test_a_part_that_does_not_fit(whole: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(whole)
    change(whole)
    refused(whole, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 16}, "self_test.embedding"),
        ({"precisions": {"int8": variant("absent.onnx")}}, "absent.onnx"),
    ],
)
def test_a_manifest_that_does_not_fit(bundle_copy: Path, changes: dict, message: str) -> None:
    reseal(bundle_copy, **changes)
    refused(bundle_copy, message)


def test_a_tokenizer_with_another_end(bundle_copy: Path) -> None:
    reseal(bundle_copy, tokenizer=dataclasses.replace(SPEC, end_token=5))
    with pytest.raises(BundleError, match="49407"):
        _ = open_bundle(bundle_copy).tokenizer


def test_not_a_bundle(tmp_path: Path) -> None:
    refused(tmp_path, f"has no {MANIFEST}")
    refused(tmp_path / "none", "none: no such folder")
    (tmp_path / MANIFEST).write_bytes(b"\xff\xfe")
    refused(tmp_path, "not UTF-8")


def test_a_bundle_is_only_read(bundle_path: Path, classifier) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle_path.iterdir()}
    classifier.classify(np.zeros((40, 40, 3), np.uint8), ["something new"])
    assert {path: path.stat().st_mtime_ns for path in bundle_path.iterdir()} == before


def test_default_bundle_of_a_checkout_and_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "sar_infer"
    package.mkdir(parents=True)
    monkeypatch.setattr(sar_infer.bundle.bundle, "__file__", os.fspath(package / "bundle" / "bundle.py"))
    with pytest.raises(BundleError, match="no bundle"):
        default_bundle()
    installed = write_bundle(package / "_bundles" / "mini")
    assert default_bundle() == installed
    checkout = write_bundle(tmp_path / "site" / "exports" / "mini")
    assert default_bundle() == checkout
    assert open_bundle().path == checkout


def test_the_test_bundle_agrees_with_numpy(classifier) -> None:
    np.testing.assert_allclose(classifier.embed_names(BANK_NAMES), name_rows(BANK_NAMES), atol=1e-6)
