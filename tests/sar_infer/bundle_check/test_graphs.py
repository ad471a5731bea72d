from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, example_head, image_graph, name_graph, name_rows
from support.sound import change, image_variant, name_variant, turned_image_graph, turned_name_graph, write_sound

from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bundle.manifest import BANK, Provenance, SelfTestVector
from sar_infer.bundle_check import moved, verify_bundle
from sar_infer.bundle_check.finding import Check
from sar_infer.errors import BundleError


def beyond(bundle: Path) -> list[str]:
    """Return what moved too far, in words."""
    lines = verify_bundle(bundle)
    assert moved(lines) == any(line.verdict == "moved" for line in lines)
    return [line.what for line in lines if line.verdict == "moved"]


def line(bundle: Path, start: str) -> Check:
    (found,) = [line for line in verify_bundle(bundle) if line.what.startswith(start)]
    return found


def test_a_sound_bundle(tmp_path: Path) -> None:
    bundle = write_sound(
        tmp_path / "bundle",
        files={
            "image_encoder.int8.onnx": image_graph(),
            "name_encoder.int8.onnx": name_graph(),
        },
        head=example_head(),
        precisions={"int8": dataclasses.replace(image_variant()["int8"], name=name_variant()["int8"].name)},
    )
    lines = verify_bundle(bundle)
    assert not moved(lines)
    assert [line.what for line in lines if line.verdict == "ok"] == [
        "self-test image, cosine",
        "4 bank rows made again, difference",
        "batches of 1, 2, 7 and 33, difference",
        "what answers for the head's classes",
        "int8 image encoder, self-test image, cosine",
        "int8 name encoder, 4 names, mean cosine",
        "int8 name encoder, 4 names, same class",
    ]


def test_another_version_is_told_and_fails_nothing(tmp_path: Path) -> None:
    then = Provenance("2000-01-01T00:00:00Z", "tests", {"onnxruntime": "1.0.0"})
    bundle = write_sound(tmp_path / "bundle", provenance=then)
    assert line(bundle, "version of") == Check("version of onnxruntime", "1.0.0", onnxruntime.__version__, "changed")
    assert beyond(bundle) == []


def test_a_probe_that_the_graph_does_not_give(tmp_path: Path) -> None:
    bundle = write_sound(tmp_path / "bundle", self_test=SelfTestVector(1, tuple(np.eye(DIM)[0].tolist())))
    assert beyond(bundle) == ["self-test image, cosine"]
    assert line(bundle, "self-test").then == 1.0


def test_a_bundle_without_a_probe(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no self-test"):
        verify_bundle(write_sound(tmp_path / "bundle", self_test=None))


def test_rows_that_the_name_encoder_does_not_give(tmp_path: Path) -> None:
    bundle = write_sound(tmp_path / "bundle")
    ClassBank(BANK_NAMES, name_rows(BANK_NAMES)[::-1].copy(), ENCODER_DIGEST).save(bundle / BANK)
    change(bundle)
    assert beyond(bundle) == ["4 bank rows made again, difference"]


def test_rows_of_several_phrases(tmp_path: Path) -> None:
    bundle = write_sound(tmp_path / "bundle")
    phrases = ("red", "blue")
    row = name_rows(phrases).mean(axis=0, keepdims=True)
    info = {"pet": ClassInfo(phrases=phrases)}
    ClassBank(("pet",), (row / np.linalg.norm(row)).astype(np.float32), ENCODER_DIGEST, info=info).save(bundle / BANK)
    change(bundle)
    assert beyond(bundle) == []


def constant_image_graph() -> onnx.ModelProto:
    """Return an encoder whose scales are lost: every image gives the same row."""
    model = image_graph()
    row = numpy_helper.from_array(np.ones(DIM, dtype=np.float32), "row")
    scale = numpy_helper.from_array(np.zeros((), dtype=np.float32), "scale")
    model.graph.initializer.extend([row, scale])
    model.graph.node[-1].input[0] = "lost"
    model.graph.node.insert(2, helper.make_node("Mul", ["raw", "scale"], ["nothing"]))
    model.graph.node.insert(3, helper.make_node("Add", ["nothing", "row"], ["lost"]))
    return model


@pytest.mark.parametrize("graph", [constant_image_graph, turned_image_graph])
def test_a_smaller_image_encoder_that_is_broken(tmp_path: Path, graph: Callable[[], onnx.ModelProto]) -> None:
    bundle = write_sound(tmp_path / "bundle", files={"image_encoder.int8.onnx": graph()}, precisions=image_variant())
    assert beyond(bundle) == ["int8 image encoder, self-test image, cosine"]


def test_a_smaller_name_encoder_that_lost_agreement(tmp_path: Path) -> None:
    bundle = write_sound(
        tmp_path / "bundle", files={"name_encoder.int8.onnx": turned_name_graph()}, precisions=name_variant()
    )
    assert "int8 name encoder, 4 names, mean cosine" in beyond(bundle)
    assert line(bundle, "int8 name encoder, 4 names, same class").then == 1.0
