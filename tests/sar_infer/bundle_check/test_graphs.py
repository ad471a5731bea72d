from __future__ import annotations

import platform
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, example_head, image_graph, name_graph, name_rows
from support.sound import change, smaller, turned_image_graph, turned_name_graph, write_sound

from sar_infer.bank import ClassBank
from sar_infer.bundle.manifest import BANK, Provenance, SelfTestVector
from sar_infer.bundle_check import moved, verify_bundle
from sar_infer.bundle_check.finding import Check
from sar_infer.errors import BundleError


def beyond(bundle: Path) -> list[str]:
    """Return what moved too far, in words."""
    lines = verify_bundle(bundle)
    assert moved(lines) == any(line.verdict == "moved" for line in lines)
    return [line.what for line in lines if line.verdict == "moved"]


def test_a_sound_bundle(tmp_path: Path) -> None:
    bundle = write_sound(
        tmp_path / "bundle",
        files={"image_encoder.int8.onnx": image_graph(), "name_encoder.int8.onnx": name_graph()},
        head=example_head(),
        precisions=smaller("image", "name"),
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


def test_other_versions_are_told_and_fail_nothing(tmp_path: Path) -> None:
    then = {"python": platform.python_version(), "numpy": np.__version__, "onnxruntime": "1.0.0", "no-such": "1.0"}
    made = Provenance("2000-01-01T00:00:00Z", "tests", then)
    findings = verify_bundle(write_sound(tmp_path / "bundle", provenance=made))
    assert not moved(findings)
    assert findings[:3] == [
        Check("version of onnxruntime", "1.0.0", onnxruntime.__version__, "changed"),  # by whatever name it has here
        Check("version of no-such", "1.0", "not installed", "changed"),
        Check("versions that are the same", None, "2 of 4", "noted"),
    ]


def test_a_self_test_that_the_graph_does_not_give_and_none(tmp_path: Path) -> None:
    bundle = write_sound(tmp_path / "bundle", self_test=SelfTestVector(1, tuple(np.eye(DIM)[0].tolist())))
    assert beyond(bundle) == ["self-test image, cosine"]
    change(bundle, self_test=None)
    with pytest.raises(BundleError, match="no self-test"):
        verify_bundle(bundle)


def test_rows_that_the_name_encoder_does_not_give(tmp_path: Path) -> None:
    bundle = write_sound(tmp_path / "bundle")
    ClassBank.of(BANK_NAMES, name_rows(BANK_NAMES)[::-1].copy(), ENCODER_DIGEST).save(bundle / BANK)
    change(bundle)
    assert beyond(bundle) == ["4 bank rows made again, difference"]


def test_rows_of_several_phrases(tmp_path: Path) -> None:
    bundle = write_sound(tmp_path / "bundle")
    phrases = ("red", "blue")
    row = name_rows(phrases).mean(axis=0, keepdims=True)
    embedding = (row / np.linalg.norm(row)).astype(np.float32)
    ClassBank.of(("pet",), embedding, ENCODER_DIGEST, phrases={"pet": phrases}).save(bundle / BANK)
    change(bundle)
    assert beyond(bundle) == []


@pytest.mark.parametrize("kind", ["image", "name"])
def test_a_smaller_encoder_that_is_broken(tmp_path: Path, kind: str) -> None:
    graph = turned_image_graph() if kind == "image" else turned_name_graph()
    files = {f"{kind}_encoder.int8.onnx": graph}
    bundle = write_sound(tmp_path / "bundle", files=files, precisions=smaller(kind))
    figure = "self-test image, cosine" if kind == "image" else "4 names, mean cosine"
    assert f"int8 {kind} encoder, {figure}" in beyond(bundle)


def test_a_graph_in_place_of_another(tmp_path: Path) -> None:
    bundle = write_sound(tmp_path / "bundle")
    shutil.copy(bundle / "name_encoder.onnx", bundle / "image_encoder.onnx")
    change(bundle)
    with pytest.raises(BundleError, match="does not take what this encoder is given"):
        verify_bundle(bundle)
