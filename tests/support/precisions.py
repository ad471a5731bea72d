"""The tiny bundle with smaller graphs beside its own, whose vectors differ a little, so that one sees which ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from support.bundles import image_graph, name_graph, reseal

from sar_infer.bundle.manifest import Precision, Variant


def variant(file: str, **changes: Any) -> Variant:
    figures = {"min_cosine": 0.98, "mean_cosine": 0.995, "top1_agreement": 0.99, "speedup": 2.0}
    return Variant(file, "dynamic", 100, **figures | changes)


def add_precision(path: Path, precision: str = "int8", name: bool = True, **changes: Any) -> Path:
    """Give a bundle smaller graphs; ``changes`` are the image variant's."""
    files = [f"{kind}_encoder.{precision}.onnx" for kind in ("image", "name")]
    onnx.save(turned(image_graph(), "weight"), path / files[0])
    if name:
        onnx.save(turned(name_graph(), "table"), path / files[1])
    graphs = Precision(variant(files[0], **changes), variant(files[1]) if name else None)
    reseal(path, precisions={precision: graphs})
    return path


def turned(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The graph with its rows (…, D) turned by a quarter of a right angle or so in their first two dimensions."""
    (weight,) = [t for t in model.graph.initializer if t.name == tensor]
    values = numpy_helper.to_array(weight).copy()
    values[..., 0], values[..., 1] = (
        0.9 * values[..., 0] - 0.436 * values[..., 1],
        0.436 * values[..., 0] + 0.9 * values[..., 1],
    )
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor))
    return model


def broken(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The graph with a tensor of NaN."""
    (weight,) = [t for t in model.graph.initializer if t.name == tensor]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32("nan"), tensor))
    return model
