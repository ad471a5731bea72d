from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.bundles import (
    BANK_NAMES,
    DIM,
    ENCODER_DIGEST,
    SPEC,
    example_head,
    image_graph,
    name_rows,
    reseal,
    write_bundle,
)

import sar_infer.bundle.bundle
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import default_bundle, open_bundle
from sar_infer.bundle.manifest import BANK, HEAD, IMAGE_ENCODER, MANIFEST, NAME_ENCODER, TOKENIZER, file_entry
from sar_infer.classifiers.head import ClassHead
from sar_infer.errors import BundleError

FILES = (IMAGE_ENCODER, NAME_ENCODER, BANK, TOKENIZER)


def refused(path: Path, message: str, error: type[Exception] = BundleError) -> None:
    with pytest.raises(error, match=message) as caught:
        open_bundle(path)
    assert "\n" not in str(caught.value)


def test_a_sound_bundle_opens(bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    assert bundle.bank.names == BANK_NAMES
    assert bundle.manifest.embed_dim == DIM
    assert bundle.tokenizer.encode("dog") == [1929]


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_one_changed_byte_anywhere_is_noticed(bundle_copy: Path, name: str) -> None:
    data = (bundle_copy / name).read_bytes()
    for position in np.linspace(0, len(data) - 1, 12).astype(int).tolist():
        (bundle_copy / name).write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        refused(bundle_copy, name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    refused(bundle_copy, name)


@pytest.mark.parametrize("name", FILES)
def test_a_required_file_that_is_not_listed(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    reseal(bundle_copy)
    refused(bundle_copy, f"list {name}")


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "weights.data"])
def test_an_extra_file(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).write_text("x")
    refused(bundle_copy, name)


def test_an_extra_folder(bundle_copy: Path) -> None:
    (bundle_copy / "more").mkdir()
    refused(bundle_copy, "more")


def test_a_listed_further_file_is_fine(bundle_copy: Path) -> None:
    (bundle_copy / "README.md").write_text("hello")
    reseal(bundle_copy)
    assert "README.md" in open_bundle(bundle_copy).manifest.files


@pytest.mark.parametrize("name", ["../outside", "more/inside"])
def test_a_listed_name_that_is_a_path(bundle_copy: Path, name: str) -> None:
    target = bundle_copy / name
    target.parent.mkdir(exist_ok=True)
    target.write_text("x")
    listed = {entry: file_entry(bundle_copy / entry) for entry in (*FILES, name)}
    _seal_with(bundle_copy, files=listed)
    refused(bundle_copy, name)


@pytest.mark.parametrize("name", [IMAGE_ENCODER, MANIFEST])
def test_a_link_out_of_the_folder(bundle_copy: Path, name: str) -> None:
    outside = shutil.move(bundle_copy / name, bundle_copy.parent / "outside")
    (bundle_copy / name).symlink_to(outside)
    refused(bundle_copy, name)


def test_the_folder_itself_may_be_a_link(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle_path)
    assert open_bundle(tmp_path / "link").bank.names == BANK_NAMES


def test_a_folder_in_place_of_a_file(bundle_copy: Path) -> None:
    (bundle_copy / TOKENIZER).unlink()
    (bundle_copy / TOKENIZER).mkdir()
    refused(bundle_copy, TOKENIZER)


def test_a_bank_of_another_encoder(bundle_copy: Path) -> None:
    reseal(bundle_copy, encoder_digest="f" * 64)
    refused(bundle_copy, "f" * 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 16}, "rows of 8"),
        ({"tokenizer": dataclasses.replace(SPEC, n_prefix=4)}, "n_prefix 4"),
    ],
)
def test_a_manifest_that_does_not_fit(bundle_copy: Path, changes: dict, message: str) -> None:
    reseal(bundle_copy, **changes)
    refused(bundle_copy, message)


def test_a_calibrated_class_that_the_bank_does_not_have(bundle_copy: Path) -> None:
    reseal(bundle_copy, calibrated=("red", "owl"))
    refused(bundle_copy, "owl")


def test_a_bank_of_another_width(bundle_copy: Path) -> None:
    rows = np.eye(2, DIM + 1, dtype=np.float32)
    ClassBank(("a", "b"), rows, ENCODER_DIGEST).save(bundle_copy / BANK)
    reseal(bundle_copy)
    refused(bundle_copy, f"rows of {DIM + 1}")


def test_external_weights(bundle_copy: Path) -> None:
    """Listed and hashed like any file, and still refused."""
    onnx.save(image_graph(), bundle_copy / IMAGE_ENCODER, save_as_external_data=True, location="w", size_threshold=0)
    reseal(bundle_copy)
    refused(bundle_copy, "outside")


# --------------------------------------------------------------------------------------------------------------- head
def test_a_bundle_with_a_head_opens(headed_path: Path, bundle_path: Path) -> None:
    bundle = open_bundle(headed_path)
    assert bundle.head is not None
    assert bundle.head.names == ("Grey  thing", "red", "blue", "green")
    assert (bundle.manifest.head, bundle.manifest.min_reader) == (HEAD, 3)
    assert open_bundle(bundle_path).head is None


def test_a_head_for_some_of_the_banks_classes(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "b", head=example_head(("blue", "red"))))
    assert bundle.head is not None
    assert bundle.head.names == ("blue", "red")


@pytest.mark.parametrize("named", ["bank.safetensors", "../head.safetensors", ""])
def test_a_head_of_another_name(headed_copy: Path, named: str) -> None:
    reseal(headed_copy, head=named)
    refused(headed_copy, f"got '{named}'")


def test_a_head_is_named_and_listed_or_neither(headed_copy: Path, bundle_copy: Path) -> None:
    reseal(headed_copy, head=None)
    refused(headed_copy, f"{HEAD}: listed")
    reseal(bundle_copy, head=HEAD)
    refused(bundle_copy, f"not list {HEAD}")


def test_a_damaged_or_missing_head(headed_copy: Path) -> None:
    data = (headed_copy / HEAD).read_bytes()
    for position in np.linspace(0, len(data) - 1, 12).astype(int).tolist():
        (headed_copy / HEAD).write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        refused(headed_copy, f"{HEAD}: damaged")
    (headed_copy / HEAD).unlink()
    refused(headed_copy, f"{HEAD}: missing")
    (headed_copy / HEAD).write_bytes(b"hello")
    reseal(headed_copy)
    refused(headed_copy, HEAD)
    shutil.copy(headed_copy / BANK, headed_copy / HEAD)
    reseal(headed_copy)
    refused(headed_copy, HEAD)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (dataclasses.replace(example_head(), encoder_digest="f" * 64), "f" * 8),
        (example_head(dim=DIM + 1), f"rows of {DIM + 1}"),
        (example_head(("red", "zebra")), "zebra"),
        (example_head(("red", " RED")), "' RED'"),
    ],
    ids=["encoder", "width", "class", "case"],
)
def test_a_head_that_does_not_fit(headed_copy: Path, head: ClassHead, message: str) -> None:
    head.save(headed_copy / HEAD)
    reseal(headed_copy)
    refused(headed_copy, f"{HEAD}: .*{message}")


def test_a_tokenizer_with_another_end(bundle_copy: Path) -> None:
    reseal(bundle_copy, tokenizer=dataclasses.replace(SPEC, end_token=5))
    with pytest.raises(BundleError, match="49407"):
        _ = open_bundle(bundle_copy).tokenizer


def test_not_a_bundle(tmp_path: Path) -> None:
    refused(tmp_path, MANIFEST)
    refused(tmp_path / "none", "none")
    (tmp_path / MANIFEST).write_bytes(b"\xff\xfe")
    refused(tmp_path, "not UTF-8")


def test_a_read_only_bundle_is_left_as_it_is(bundle_path: Path, classifier) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle_path.iterdir()}
    classifier.classify(np.zeros((40, 40, 3), np.uint8), ["something new"])
    assert {path: path.stat().st_mtime_ns for path in bundle_path.iterdir()} == before


def test_default_bundle_of_a_checkout_and_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "sar_infer"
    package.mkdir(parents=True)
    monkeypatch.setattr(sar_infer.bundle.bundle, "__file__", str(package / "bundle" / "bundle.py"))
    with pytest.raises(BundleError, match="no bundle"):
        default_bundle()
    installed = write_bundle(package / "_bundles" / "mini")
    assert default_bundle() == installed
    checkout = write_bundle(tmp_path / "site" / "exports" / "mini")
    assert default_bundle() == checkout
    assert open_bundle().path == checkout


def test_the_test_bundle_agrees_with_numpy(classifier) -> None:
    np.testing.assert_allclose(classifier.embed_names(BANK_NAMES), name_rows(BANK_NAMES), atol=1e-6)


def _seal_with(path: Path, **changes) -> None:
    from support.bundles import example_manifest

    (path / MANIFEST).write_text(dataclasses.replace(example_manifest(), **changes).sealed().dump(), "utf-8")
