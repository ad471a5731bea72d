"""The tiny bundle with a smaller image encoder beside its own, whose vectors differ a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from support.bundles import image_graph, reseal

from sar_infer.bundle.manifest import Variant


def variant(file: str, **changes: Any) -> Variant:
    figures = {"min_cosine": 0.98, "mean_cosine": 0.995, "top1_agreement": 0.99, "speedup": 2.0}
    return Variant(file, 100, **figures | {"self_test_cosine": -1.0} | changes)


def add_precision(path: Path, precision: str = "int8", **changes: Any) -> Path:
    """Give a bundle a smaller image encoder; ``changes`` are its figures', and its self-test accepts any vector."""
    file = f"image_encoder.{precision}.onnx"
    onnx.save(turned(image_graph(), "weight"), path / file)
    reseal(path, precisions={precision: variant(file, **changes)})
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
