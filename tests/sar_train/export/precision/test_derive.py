"""A real bundle of the tiny backbone gets smaller graphs and a policy for JPEGs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from support.folders import listing
from support.photos import SHARED, needs_shared, write_photo

from sar_infer import Classifier
from sar_infer.artefact import BANK, IMAGE_ENCODER
from sar_infer.bundle import default_bundle, open_bundle
from sar_train.errors import ExportError
from sar_train.export.precision import jpeg, variants
from sar_train.export.precision.derive import Wanted, derive
from sar_train.export.precision.gate import GATES, Gate
from sar_train.export.precision.samples import Photos, split
from sar_train.export.precision.sides import Images

LOOSE = Gate(min_cosine=0.9, mean_cosine=0.9, top1_agreement=0.5)
OUT_OF_REACH = Gate(min_cosine=1.1, mean_cosine=0.9, top1_agreement=0.5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    root = tmp_path_factory.mktemp("photos")
    return split([write_photo(root / f"{i:02d}.png", i) for i in range(40)], root)


def test_smaller_graphs_beside_the_same_encoder(exported: Path, photos: Photos, tmp_path: Path) -> None:
    wanted = Wanted({"fp16": LOOSE, "int8": LOOSE})
    made = derive(exported, tmp_path / "new", wanted, photos, command="tests")
    before, bundle = open_bundle(exported), open_bundle(tmp_path / "new")
    assert set(bundle.manifest.precisions) == {"fp16", "int8"}
    assert bundle.manifest.encoder_digest == before.manifest.encoder_digest
    assert bundle.manifest.passport.tables["precision"] == {"calibration": 20, "judging": 20}
    assert (tmp_path / "new" / BANK).samefile(exported / BANK)
    for graphs in bundle.manifest.precisions.values():
        assert graphs.image and graphs.image.samples == 20
        assert graphs.image.probe_cosine == pytest.approx(1, abs=0.02)
        assert graphs.name and "20 photos choose the same" in graphs.name.notes[-1]
    assert len(made.lines) == 4 and all(line.endswith(": kept") for line in made.lines)
    pictures = list(photos.judging)
    full, small = (Classifier(bundle, device="cpu", precision=p).embed_images(pictures) for p in ("fp32", "int8"))
    figures = bundle.manifest.precisions["int8"].image
    assert (full * small).sum(1).min() == pytest.approx(figures.min_cosine, abs=1e-5)


def test_what_misses_its_gate_is_left_out(exported: Path, photos: Photos, tmp_path: Path) -> None:
    wanted = Wanted({"fp16": LOOSE, "int8": OUT_OF_REACH})
    made = derive(exported, tmp_path / "new", wanted, photos, command="tests")
    assert set(made.manifest.precisions) == {"fp16"}
    assert "int8 image encoder" in made.lines[2]
    assert "left out (cosine on the worst" in made.lines[2]
    assert not list((tmp_path / "new").glob("*.int8.onnx"))


def test_nothing_is_written_where_nothing_passes(exported: Path, photos: Photos, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"nothing that was asked for passed: fp16 image encoder.*nothing was chang"):
        derive(exported, tmp_path / "new", Wanted({"fp16": OUT_OF_REACH}), photos, command="tests")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_in_its_own_place(copy: Path, photos: Photos) -> None:
    before = listing(copy)
    derive(copy, copy, Wanted({"fp16": LOOSE}), photos, command="tests", overwrite=True)
    after = listing(copy)
    assert set(after) - set(before) == {"image_encoder.fp16.onnx", "name_encoder.fp16.onnx"}
    again = derive(copy, copy, Wanted({"int8": LOOSE}), photos, command="tests", overwrite=True)
    assert set(again.manifest.precisions) == {"fp16", "int8"}


def test_a_broken_graph_does_not_pass(exported: Path, photos: Photos, tmp_path: Path) -> None:
    side = Images(open_bundle(exported), photos)
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


def test_a_policy_for_large_jpegs(exported: Path, photos: Photos, tmp_path: Path, monkeypatch) -> None:
    made = derive(exported, tmp_path / "new", Wanted(jpeg_margin=2.0), photos, command="tests")
    spec = made.manifest.preprocess
    assert spec == dataclasses.replace(open_bundle(exported).manifest.preprocess, jpeg_margin=2.0)
    assert made.manifest.passport.tables["jpeg_margin"]["margin"] == 2.0
    assert made.manifest.passport.tables["jpeg_margin"]["as_they_are"] == 0
    monkeypatch.setattr(jpeg, "JPEG_GATE", OUT_OF_REACH)
    with pytest.raises(ExportError, match=r"jpeg margin 2: 20 photos \(0 as they are, the others enlarged\)"):
        derive(exported, tmp_path / "other", Wanted(jpeg_margin=2.0), photos, command="tests")


@needs_shared
@pytest.mark.slow
def test_sar_mini_in_int8_on_real_photos(tmp_path: Path) -> None:
    folder = SHARED / "imagenet_sample"
    drawn = split(sorted(folder.glob("*.jpg"))[::5], folder)
    bundle, gate = open_bundle(default_bundle()), dataclasses.replace(GATES["int8"], speedup=0, top1_agreement=0.95)
    image, name = variants.make(bundle, tmp_path, {"int8": gate}, drawn, lambda _: None)
    assert image.failures == name.failures == ()
    assert image.variant is not None and image.variant.method == "static"
    assert image.variant.mean_cosine > 0.997
    assert (tmp_path / image.variant.file).stat().st_size < 0.7 * (bundle.path / IMAGE_ENCODER).stat().st_size
