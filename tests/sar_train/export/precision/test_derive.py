"""A real bundle of the tiny backbone gets smaller graphs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.bundles import DIM, example_head, write_bundle
from support.folders import listing
from support.photos import SHARED, needs_shared, write_photo
from support.sound import change

from sar_infer import Classifier
from sar_infer.bundle.bundle import default_bundle, open_bundle
from sar_infer.bundle.manifest import BANK, IMAGE_ENCODER, NAME_ENCODER
from sar_infer.encoders.processor import processor
from sar_train.errors import ExportError
from sar_train.export.precision import samples, variants
from sar_train.export.precision.derive import derive
from sar_train.export.precision.gate import GATES, NEAR_TIE, Gate, image_logits, near_ties
from sar_train.export.precision.samples import BATCH, PhotoSamples, split
from sar_train.export.precision.sides import ImageSide

LOOSE = Gate(min_cosine=0.9, mean_cosine=0.9, top1_agreement=0.5)
OUT_OF_REACH = Gate(min_cosine=1.1, mean_cosine=0.9, top1_agreement=0.5)


@pytest.fixture(autouse=True, scope="module")
def few_names() -> Iterator[None]:
    """A hundred nouns beside the bank are enough for a tiny backbone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "MOST_NAMES", 100)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSamples:
    root = tmp_path_factory.mktemp("photos")
    return split([write_photo(root / f"{i:02d}.png", i) for i in range(44)], root)


def test_smaller_graphs_beside_the_same_encoder(exported: Path, photos: PhotoSamples, tmp_path: Path) -> None:
    gates = {"fp16": LOOSE, "int8": LOOSE}
    _, outcome = derive(exported, tmp_path / "new", photos, gates=gates, command="tests")
    before, bundle = open_bundle(exported), open_bundle(tmp_path / "new")
    assert set(bundle.manifest.precisions) == {"fp16", "int8"}
    assert bundle.manifest.encoder_digest == before.manifest.encoder_digest
    counts = {"calibration": len(photos.calibration), "judging": len(photos.judging)}
    assert bundle.manifest.quality.tables["precision"] == counts
    assert (tmp_path / "new" / BANK).samefile(exported / BANK)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", bundle.manifest.provenance.created)
    for graphs in bundle.manifest.precisions.values():
        assert graphs.image and graphs.name and graphs.image.processor == graphs.name.processor == processor()
        assert graphs.image.samples == len(photos.judging)
        assert graphs.image.self_test_cosine == pytest.approx(1, abs=0.02)
        assert f"{len(photos.judging)} photos choose the same" in graphs.name.notes[-1]
    assert len(outcome.lines) == 4 and all(line.endswith(": kept") for line in outcome.lines)
    assert (outcome.runs, outcome.missing) == (["fp16", "int8"], [])
    images = list(photos.judging)
    full, small = (  # in the batches of the judge: INT8 scales that are found at run time are those of a batch
        Classifier(bundle, device="cpu", precision=p).embed_images(images, BATCH) for p in ("fp32", "int8")
    )
    figures = bundle.manifest.precisions["int8"].image
    assert (full * small).sum(1).min() == pytest.approx(figures.min_cosine, abs=1e-6)


def test_a_graph_that_misses_its_gate_is_left_out(exported: Path, copy: Path, photos: PhotoSamples) -> None:
    """In the bundle's own place, where a later attempt adds to what is there."""
    before = listing(copy)
    gates = {"fp16": LOOSE, "int8": OUT_OF_REACH}
    manifest, outcome = derive(copy, copy, photos, gates=gates, command="tests", overwrite=True)
    assert set(listing(copy)) - set(before) == {"image_encoder.fp16.onnx", "name_encoder.fp16.onnx"}
    assert [*manifest.precisions] == outcome.runs == ["fp16"]
    assert outcome.missing[0].startswith("int8 image encoder (cosine on the worst")
    entries = outcome.plain()
    assert [(entry["precision"], entry["encoder"], entry["kept"]) for entry in entries] == [
        ("fp16", "image", True), ("fp16", "name", True), ("int8", "image", False), ("int8", "name", False),
    ]  # fmt: skip
    assert entries[2]["figures"]["min_cosine"] < 1 and "expected at least 1.1" in entries[2]["reasons"][0]
    again, _ = derive(copy, copy, photos, gates={"int8": LOOSE}, command="tests", overwrite=True)
    assert set(again.precisions) == {"fp16", "int8"}
    with pytest.raises(ExportError, match="fp16 image encoder"):
        derive(exported, copy.parent / "new", photos, gates={"fp16": OUT_OF_REACH}, command="tests")
    assert listing(copy.parent) == ["copy"]


def test_a_broken_graph_does_not_pass(exported: Path, photos: PhotoSamples, tmp_path: Path) -> None:
    side = ImageSide(open_bundle(exported), photos)
    model = onnx.load(exported / IMAGE_ENCODER)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    for name, gate in GATES.items():
        figures, _, _ = side.judged(tmp_path / "broken.onnx", gate)
        assert gate.failures(figures), name
        whole, _, _ = side.judged(exported / IMAGE_ENCODER, gate)
        assert gate.failures(whole) == [], name


def test_a_name_encoder_that_overflows_float16_is_left_out(copy: Path, photos: PhotoSamples, tmp_path: Path) -> None:
    """Its last product is a million times as large, which unit rows do not show in float32."""
    model = onnx.load(copy / NAME_ENCODER)
    product = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")][-1]
    (weight,) = [t for t in model.graph.initializer if t.name == product.input[1]]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    onnx.save(model, copy / NAME_ENCODER)
    change(copy)
    _, outcome = derive(copy, tmp_path / "new", photos, gates={"fp16": LOOSE}, command="tests")
    image, name = outcome.attempts
    assert image.failures == ()
    assert name.failures == ("it gives numbers that are not finite",)
    assert outcome.missing == []  # the name encoder of float32 runs beside
    assert not (tmp_path / "new" / "name_encoder.fp16.onnx").exists()


def test_a_graph_that_is_none_or_kills_the_process_does_not_open(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    assert not variants.opens(tmp_path / "bad.onnx")
    (tmp_path / "sitecustomize.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not variants.opens(exported / IMAGE_ENCODER)


def test_another_answer_is_told_with_near_ties(exported: Path, photos: PhotoSamples) -> None:
    bundle = open_bundle(exported)
    reference = ImageSide(bundle, photos).reference
    assert near_ties(bundle, reference, reference) == (0, 0)
    classifier = Classifier(bundle, device="cpu")
    classes = classifier.class_set()
    scores = np.sort(classifier.scores(classifier.logits(reference, classes), classes), axis=1)
    level = scores[:, -1] - scores[:, -2] < NEAR_TIE
    best, opposite = (classifier.logits(rows, classes).argmax(1) for rows in (reference, -reference))
    assert near_ties(bundle, -reference, reference) == ((best != opposite).sum(), ((best != opposite) & level).sum())


def test_a_head_takes_part_in_the_answers(tmp_path: Path) -> None:
    head = example_head()
    bundle = open_bundle(write_bundle(tmp_path / "bundle", head=head))
    rows = np.eye(4, DIM, dtype=np.float32)
    text = 20 * rows @ bundle.bank.embeddings.T
    np.testing.assert_allclose(image_logits(bundle)(rows), head.combined(text, rows), rtol=1e-5)


@needs_shared
@pytest.mark.nightly
def test_sar_mini_in_int8_on_real_photos(tmp_path: Path) -> None:
    folder = SHARED / "imagenet_sample"
    halves = split(sorted(folder.glob("*.jpg"))[::20], folder)
    bundle, gate = open_bundle(default_bundle()), dataclasses.replace(GATES["int8"], speedup=0, top1_agreement=0.95)
    image, name = variants.make(bundle, tmp_path, {"int8": gate}, halves, lambda _: None)
    assert image.failures == name.failures == ()
    assert image.variant is not None and image.variant.method == "static"
    assert image.variant.mean_cosine > 0.997
    assert (tmp_path / image.variant.file).stat().st_size < 0.7 * (bundle.path / IMAGE_ENCODER).stat().st_size
