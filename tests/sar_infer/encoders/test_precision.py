from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import BANK_NAMES, example_manifest, reseal
from support.cuda import with_cuda
from support.precisions import add_precision, variant

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.describe import describe
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER, FileEntry, Manifest, Precision, SelfTestVector
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.precision import Choice, choose
from sar_infer.encoders.processor import processor
from sar_infer.encoders.self_test import self_test_image
from sar_infer.errors import BundleError, InputError

IMAGE, NAME = variant("image.int8"), variant("name.int8")
HALF = variant("image.fp16", speedup=0.6)
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def manifest(**precisions: Precision) -> Manifest:
    files = {"name.int8": FileEntry("d" * 64, 1)}
    return dataclasses.replace(example_manifest(), files=files, precisions=precisions)


Become = Callable[..., Path]


BOTH = {"int8": Precision(IMAGE, NAME), "fp16": Precision(HALF)}
SLOW = {"int8": Precision(variant("image.int8", speedup=0.9)), "fp16": Precision(HALF)}


@pytest.mark.parametrize(
    ("precisions", "precision", "device", "chosen"),
    [
        (BOTH, "fp32", "cpu", "fp32"),
        (BOTH, "int8", "cpu", "int8"),
        (BOTH, "auto", "cpu", "int8"),
        (SLOW, "auto", "cpu", "fp32"),
        ({"int8": Precision(name=NAME)}, "auto", "cpu", "fp32"),
        ({"fp16": Precision(HALF)}, "auto", "cpu", "fp32"),
        ({}, "auto", "cpu", "fp32"),
        (BOTH, "auto", "cuda", "fp16"),
        ({"int8": Precision(IMAGE)}, "auto", "cuda", "fp32"),
    ],
)
def test_the_precision_of_images(
    cpu: Become, precisions: dict[str, Precision], precision: Any, device: Any, chosen: str
) -> None:
    cpu()
    assert choose(manifest(**precisions), precision, device).precision == chosen


def test_an_encoder_without_a_smaller_graph_runs_in_float32() -> None:
    digest = example_manifest().encoder_digest
    full = Choice("fp32", IMAGE_ENCODER, NAME_ENCODER, digest)
    assert choose(manifest(**BOTH), "fp32", "cpu") == full
    images = Choice("int8", "image.int8", NAME_ENCODER, digest, IMAGE)
    assert choose(manifest(int8=Precision(image=IMAGE)), "int8", "cpu") == images
    names = Choice("int8", IMAGE_ENCODER, "name.int8", f"{digest} {'d' * 64}")
    assert choose(manifest(int8=Precision(name=NAME)), "int8", "cpu") == names
    both = dataclasses.replace(images, name="name.int8", names_by=names.names_by)
    assert choose(manifest(**BOTH), "int8", "cpu") == both
    with pytest.raises(InputError, match="sar-bundle shrink BUNDLE --precision fp16"):
        choose(manifest(int8=Precision(IMAGE)), "fp16", "cpu")
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
    assert choose(manifest(int8=Precision(IMAGE)), "auto", "cpu").precision == expected


def test_int8_without_vnni_has_a_caution(cpu: Become) -> None:
    measured = dataclasses.replace(IMAGE, processor="x86-64 with VNNI")
    graphs = manifest(int8=Precision(measured), fp16=Precision(HALF))
    for become in (cpu, lambda: cpu("Features : asimd", "aarch64"), lambda: cpu().unlink()):
        become()
        assert choose(graphs, "int8", "cpu").caution is None
    cpu("flags : avx2")
    assert choose(graphs, "fp16", "cpu").caution is choose(graphs, "fp32", "cpu").caution is None
    caution = choose(graphs, "int8", "cpu").caution
    assert caution is not None
    assert "no VNNI" in caution
    assert caution.endswith("figures were measured on x86-64 with VNNI")
    unknown = choose(manifest(int8=Precision(IMAGE)), "int8", "cpu").caution
    assert unknown is not None
    assert unknown.endswith("figures may not hold")


def test_auto_chooses_anew_where_the_gpu_cannot_be_had(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_precision(bundle_copy, "fp16", name=False)
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
    for expected, good in ((cosine, True), (cosine + 0.02, False), (None, True)):
        graphs = Precision(variant("image_encoder.int8.onnx", self_test_cosine=expected))
        reseal(bundle_copy, precisions={"int8": graphs}, self_test=SelfTestVector(5, tuple(row.tolist())))
        bundle = open_bundle(bundle_copy)
        calls = (Classifier.start, lambda c: c.classify(PICTURE), lambda c: c.embed_images([PICTURE]))
        for call in calls:
            if good:
                call(Classifier(bundle, device="cpu", precision="int8"))
                continue
            with pytest.raises(BundleError, match=r"int8\.onnx: .*--precision fp32"):
                call(Classifier(bundle, device="cpu", precision="int8"))
        Classifier(bundle, device="cpu").start()


def test_a_classifier_runs_the_graphs_that_it_chose(bundle_copy: Path) -> None:
    add_precision(bundle_copy)
    cache = EmbeddingCache()
    full, small = (
        Classifier(open_bundle(bundle_copy), device="cpu", cache=cache, precision=choice_made)
        for choice_made in ("fp32", "int8")
    )
    for rows in (lambda c: c.embed_images(PICTURE), lambda c: c.embed_names(BANK_NAMES)):
        expected, classifier = rows(full), rows(small)
        cosines = (expected * classifier).sum(1)
        assert 0.8 < cosines.min() < 0.999
        np.testing.assert_array_equal(rows(full), expected)  # a cache that both share keeps them apart
        np.testing.assert_array_equal(rows(small), classifier)
    assert (full.choice.precision, small.choice.precision) == ("fp32", "int8")


def test_a_variant_that_is_absent_or_of_the_other_encoder_is_refused(bundle_copy: Path) -> None:
    reseal(bundle_copy, precisions={"int8": Precision(variant("absent.onnx"))})
    with pytest.raises(BundleError, match=r"absent\.onnx"):
        open_bundle(bundle_copy)
    reseal(bundle_copy, precisions={"int8": Precision(variant(NAME_ENCODER))})
    with pytest.raises(BundleError, match="onnxruntime cannot run this graph") as refused:
        Classifier.open(bundle_copy, "cpu", precision="int8").embed_images(PICTURE)
    assert "\n" not in str(refused.value)


def test_a_bundle_tells_its_precisions(bundle_copy: Path) -> None:
    lines = describe(open_bundle(add_precision(bundle_copy))).splitlines()
    figures = "dynamic; 100 {}: cosine 0.9950, at least 0.9800, same class 99.0%; 2.00 times as fast"
    assert f"int8 images   {figures.format('photos')}" in lines
    assert f"int8 names    {figures.format('names')}" in lines
    add_precision(bundle_copy, processor="x86-64 with VNNI")
    lines = describe(open_bundle(bundle_copy)).splitlines()
    assert f"int8 images   {figures.format('photos')}; measured on x86-64 with VNNI" in lines
