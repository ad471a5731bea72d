"""Bundles of rule-made graphs that pass every check, to be spoilt one part at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from support.bundles import SIZE, image_graph, name_graph, reseal, write_bundle

from sar_infer.bundle.manifest import MANIFEST, Manifest, Precision, SelfTestVector, Variant
from sar_infer.classifier import Classifier
from sar_infer.classifiers.head import ClassHead
from sar_infer.encoders.self_test import self_test_image

NO_FILES: Mapping[str, onnx.ModelProto] = {}


def write_sound(
    path: Path, files: Mapping[str, onnx.ModelProto] = NO_FILES, head: ClassHead | None = None, **fields: Any
) -> Path:
    """A bundle with a self-test that holds, further graphs under the names given, and fields of the manifest."""
    write_bundle(path, head=head)
    row = Classifier.open(path, "cpu").embed_images([self_test_image(SIZE, 1)])[0]
    for name, graph in files.items():
        onnx.save(graph, path / name)
    reseal(path, **{"self_test": SelfTestVector(1, tuple(row.tolist())), **fields})
    return path


def change(path: Path, **fields: Any) -> None:
    """Seal a bundle again for the files that are there, with other fields in its manifest."""
    manifest = Manifest.parse((path / MANIFEST).read_text(encoding="utf-8"))
    names = {field.name for field in dataclasses.fields(manifest)} - {"files", "digest"}
    reseal(path, **{**{name: getattr(manifest, name) for name in names}, **fields})


def smaller(*kinds: str) -> dict[str, Precision]:
    """INT8 graphs of the ``image`` encoder, the ``name`` encoder or both, that agreed wholly with the others."""
    figures = {"min_cosine": 1.0, "mean_cosine": 1.0, "top1_agreement": 1.0, "speedup": 2.0}
    variants = {kind: Variant(f"{kind}_encoder.int8.onnx", "static", 100, **figures) for kind in kinds}
    if "image" in variants:
        variants["image"] = dataclasses.replace(variants["image"], self_test_cosine=1.0)
    return {"int8": Precision(**variants)}


def turned_image_graph() -> onnx.ModelProto:
    """An image encoder that takes red for blue."""
    return _with(image_graph(), "weight", lambda weight: weight[::-1])


def turned_name_graph() -> onnx.ModelProto:
    """A name encoder that takes each token for another."""
    return _with(name_graph(), "table", lambda table: np.roll(table, 7, axis=0))


def _with(model: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> onnx.ModelProto:
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(tensor))), name))
    return model
