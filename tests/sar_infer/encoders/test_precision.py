from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import example_manifest, reseal
from support.cuda import with_cuda
from support.precisions import add_precision, variant

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, Manifest, Quality, SelfTestVector, Variant
from sar_infer.encoders.precision import Choice, choose
from sar_infer.encoders.processor import processor
from sar_infer.encoders.self_test import self_test_image
from sar_infer.errors import BundleError, InputError

IMAGE = variant("image.int8")
HALF = variant("image.fp16", speedup=0.6)
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def manifest(**precisions: Variant) -> Manifest:
    return dataclasses.replace(example_manifest(), precisions=precisions)


Become = Callable[..., Path]


BOTH = {"int8": IMAGE, "fp16": HALF}
SLOW = {"int8": variant("image.int8", speedup=0.9), "fp16": HALF}


@pytest.mark.parametrize(
    ("precisions", "precision", "device", "chosen"),
    [
        (BOTH, "fp32", "cpu", "fp32"),
        (BOTH, "int8", "cpu", "int8"),
        (BOTH, "auto", "cpu", "int8"),
        (SLOW, "auto", "cpu", "fp32"),
        ({"fp16": HALF}, "auto", "cpu", "fp32"),
        ({}, "auto", "cpu", "fp32"),
        (BOTH, "auto", "cuda", "fp16"),
        ({"int8": IMAGE}, "auto", "cuda", "fp32"),
    ],
)
def test_the_precision_of_images(
    cpu: Become, precisions: dict[str, Variant], precision: Any, device: Any, chosen: str
) -> None:
    cpu()
    assert choose(manifest(**precisions), precision, device).precision == chosen


def test_a_published_tower_in_float16_has_its_name_by_every_choice_and_another_table_harms_nothing() -> None:
    for imported, precision in (({"precision": "fp16"}, "fp16"), ({"precision": "fp7"}, "fp32"), (7, "fp32")):
        bundle = dataclasses.replace(manifest(), quality=Quality(tables={"import": imported}))
        for choice in ("fp32", "auto", precision):
            assert choose(bundle, choice, "cpu") == Choice(precision, IMAGE_ENCODER)  # type: ignore[arg-type]


def test_the_file_of_a_precision() -> None:
    assert choose(manifest(**BOTH), "fp32", "cpu") == Choice("fp32", IMAGE_ENCODER)
    assert choose(manifest(**BOTH), "int8", "cpu") == Choice("int8", "image.int8", IMAGE)
    with pytest.raises(InputError, match="sar-bundle shrink BUNDLE --precision fp16"):
        choose(manifest(int8=IMAGE), "fp16", "cpu")
    with pytest.raises(InputError, match="expected .* 'fp8'"):
        choose(manifest(), "fp8", "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "system", "flags", "kind", "expected"),
    [
        ("x86_64", "linux", "flags : avx2 avx_vnni", "x86-64 with VNNI", "int8"),
        ("AMD64", "linux", "flags : sse4_2 avx2", "x86-64 without VNNI", "fp32"),
        ("aarch64", "linux", "Features : fp asimd asimddp", "ARM64 with dot products", "int8"),
        ("aarch64", "linux", "Features : fp asimd", "ARM64 without dot products", "fp32"),
        ("arm64", "darwin", "", "ARM64 with dot products", "int8"),
        ("riscv64", "linux", "vnni asimddp", None, "fp32"),
        ("x86_64", "linux", None, None, "fp32"),
    ],
)
def test_auto_takes_int8_on_processors_that_are_fast_at_it(
    cpu: Become, machine: str, system: str, flags: str | None, kind: str | None, expected: str
) -> None:
    info = cpu(flags or "", machine, system)
    if flags is None:
        info.unlink()
    assert processor() == kind
    assert choose(manifest(int8=IMAGE), "auto", "cpu").precision == expected


def test_int8_without_vnni_has_a_caution(cpu: Become) -> None:
    measured = dataclasses.replace(IMAGE, processor="x86-64 with VNNI")
    graphs = manifest(int8=measured, fp16=HALF)
    for become in (cpu, lambda: cpu("Features : asimd", "aarch64"), lambda: cpu().unlink()):
        become()
        assert choose(graphs, "int8", "cpu").caution is None
    cpu("flags : avx2")
    assert choose(graphs, "fp16", "cpu").caution is choose(graphs, "fp32", "cpu").caution is None
    caution = choose(graphs, "int8", "cpu").caution
    assert caution is not None
    assert "no VNNI" in caution
    assert caution.endswith("figures were measured on x86-64 with VNNI")
    unknown = choose(manifest(int8=IMAGE), "int8", "cpu").caution
    assert unknown is not None
    assert unknown.endswith("figures may differ")


def test_auto_chooses_anew_where_the_gpu_cannot_be_had(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_precision(bundle_copy, "fp16")
    bundle = open_bundle(bundle_copy)
    with_cuda(monkeypatch, works=False)
    classifier = Classifier(bundle, precision="auto")
    assert (classifier.choice.precision, classifier.start()) == ("fp32", "CPUExecutionProvider")
    assert Classifier(bundle, precision="fp16").choice.precision == "fp16"


def test_a_smaller_graph_that_computes_otherwise_than_at_export_is_refused(bundle_copy: Path) -> None:
    add_precision(bundle_copy)
    bundle = open_bundle(bundle_copy)
    picture = self_test_image(bundle.manifest.preprocess.size, 5)
    row, small = (Classifier(bundle, device="cpu", precision=p).embed_images([picture])[0] for p in ("fp32", "int8"))
    cosine = float(row @ small)
    for expected, good in ((cosine, True), (cosine + 0.02, False)):
        graphs = {"int8": variant("image_encoder.int8.onnx", self_test_cosine=expected)}
        reseal(bundle_copy, precisions=graphs, self_test=SelfTestVector(5, tuple(row.tolist())))
        bundle = open_bundle(bundle_copy)
        calls = (Classifier.start, lambda c: c.classify(PICTURE), lambda c: c.embed_images([PICTURE]))
        for call in calls:
            if good:
                call(Classifier(bundle, device="cpu", precision="int8"))
                continue
            with pytest.raises(BundleError, match=r"int8\.onnx: .*--precision fp32"):
                call(Classifier(bundle, device="cpu", precision="int8"))
        Classifier(bundle, device="cpu").start()
