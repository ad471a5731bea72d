"""Bundles of rule-made graphs that pass every check, to be spoilt one part at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from support.bundles import image_graph, name_graph, reseal

from sar_infer.bundle.manifest import MANIFEST, Manifest


def change(path: Path, **fields: Any) -> None:
    """Seal a bundle again for the files that are there, with other fields in its manifest."""
    manifest = Manifest.parse((path / MANIFEST).read_text(encoding="utf-8"))
    names = {field.name for field in dataclasses.fields(manifest)} - {"files", "digest"}
    reseal(path, **{**{name: getattr(manifest, name) for name in names}, **fields})


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
