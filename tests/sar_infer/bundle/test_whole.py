"""A bundle with every part that a bundle may have: all of them open, are compared with the manifest, and are told."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import onnx
import pytest
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, SPEC
from support.rich_bundle import write_rich_bundle
from support.trained import example_statistics

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.describe import describe
from sar_infer.bundle.manifest import (
    IMAGE_ENCODER,
    MANIFEST,
    NAME_ENCODER,
    STATISTICS,
    Manifest,
    Reference,
    file_entry,
)
from sar_infer.errors import BundleError

SMALLER = ("image_encoder.int8.onnx", "name_encoder.int8.onnx")


def changed(path: Path, **changes: object) -> None:
    """Write the manifest anew for the files that are there."""
    manifest = Manifest.parse((path / MANIFEST).read_text("utf-8"), "")
    files = {entry.name: file_entry(entry) for entry in path.iterdir() if entry.name != MANIFEST}
    found = dataclasses.replace(manifest, **{"files": files, **changes}).sealed()  # type: ignore[arg-type]
    (path / MANIFEST).write_text(found.dump(), "utf-8")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = write_rich_bundle(tmp_path / "whole")
    shutil.copy(path / NAME_ENCODER, path / "reference_encoder.onnx")  # as bundles had it once
    example_statistics().save(path / STATISTICS)
    changed(path, reference=Reference("a {}.", SPEC), statistics=STATISTICS)
    return path


def test_every_part_is_opened(whole: Path) -> None:
    bundle = open_bundle(whole)
    assert bundle.head is not None
    assert bundle.statistics is not None
    assert (bundle.head.names, bundle.statistics.names) == (BANK_NAMES, BANK_NAMES[:3])
    assert bundle.manifest.precisions["int8"].image is not None
    assert bundle.manifest.reference == Reference("a {}.", SPEC)
    assert set(bundle.bank.names) == {*BANK_NAMES, "rose"}


@pytest.mark.parametrize("name", [IMAGE_ENCODER, NAME_ENCODER, *SMALLER])
def test_every_graph_holds_its_weights(whole: Path, name: str) -> None:
    model = onnx.load_from_string((whole / name).read_bytes())
    weights = model.graph.initializer[0]
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="elsewhere")
    (whole / name).write_bytes(model.SerializeToString())
    changed(whole)
    with pytest.raises(BundleError, match=f"{name}: refers to data outside"):
        open_bundle(whole)


@pytest.mark.parametrize("name", [STATISTICS, *SMALLER])
def test_every_part_is_there_and_named(whole: Path, name: str) -> None:
    (whole / name).unlink()
    changed(whole)
    with pytest.raises(BundleError, match=name):
        open_bundle(whole)


@pytest.mark.parametrize("field", ["statistics", "head"])
def test_what_is_there_is_named(whole: Path, field: str) -> None:
    changed(whole, **{field: None}, calibrated_for=None, temperature=None, thresholds={}, conformal={}, calibrated=())
    with pytest.raises(BundleError, match=field):
        open_bundle(whole)


def test_statistics_of_another_width_or_of_other_classes_do_not_fit(whole: Path) -> None:
    for found in (example_statistics(dim=DIM + 1), example_statistics(("red", "owl"))):
        found.save(whole / STATISTICS)
        changed(whole)
        with pytest.raises(BundleError, match=STATISTICS):
            open_bundle(whole)


def test_every_part_is_described(whole: Path) -> None:
    bundle = open_bundle(whole)
    size = sum(entry.size for entry in bundle.manifest.files.values()) / 1e6
    assert describe(bundle).splitlines() == [
        f"bundle        {whole}, {size:.1f} MB",
        "backbone      tiny",
        "method        coop with sar 1",
        "template      a photo of a {}.",
        "classes       5 in the bank",
        "head          for 4 of them, with a share of 0.7 beside the text branch",
        "statistics    of 12 photos of 3 classes, with a weight of 0.3 beside the text branch",
        "embedding     8 numbers, logit scale 20",
        "image         32 pixels, shortest",
        "class name    at most 18 tokens",
        "measured on   nothing, all, up to 16 photos of each class learned",
        "zero-shot     base 30.0 %",
        "this bundle   base 50.0 %, new 40.0 %, harmonic mean 44.4 %",
        "note          a test",
        "temperature   1.500, for 4 classes",
        "unknown       score below 0.100, or energy above 5.00",
        "calibration   fitted on 20 photos; error (ECE) 10.0% before, 5.0% after, on 20 photos, cross-fitted; in "
        "float32",
        "sets          coverage 0.9: 91.0% measured, 1.50 classes each",
        "unknown by    score: AUROC 0.800 on classes that were new",
        "int8 images   dynamic; 10 photos: cosine 1.0000, at least 1.0000, same class 100.0%; 2.00 times as fast",
        "int8 names    dynamic; 10 names: cosine 1.0000, at least 1.0000, same class 100.0%; 2.00 times as fast",
        f"digest        {bundle.manifest.digest}",
        f"encoder       {ENCODER_DIGEST}",
        "created       2000-01-01T00:00:00Z",
        "by            tests",
    ]
