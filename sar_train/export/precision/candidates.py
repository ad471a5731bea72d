"""Smaller forms of a float graph that are worth judging."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from sar_train.export.compact import write_graph
from sar_train.export.precision.batches import Rows, batches
from sar_train.export.precision.cast import cast
from sar_train.export.precision.int8 import dynamic, static
from sar_train.export.verify import open_graph

FIRST = (1, 2, 4)
"""How many of the first convolutions stay in float32: tried in turn."""
ENOUGH = 0.998
"""Mean cosine on the calibration photos at which the search for layers to keep ends."""


@dataclass(frozen=True)
class Candidate:
    """A graph that has not been judged yet."""

    model: onnx.ModelProto
    method: Literal["cast", "dynamic", "static"]
    notes: tuple[str, ...] = ()


def smaller(
    model: onnx.ModelProto, precision: str, calibration: Sequence[Rows], tell: Callable[[str], None]
) -> Candidate | None:
    """The smaller form that suits the network.

    Transformers get INT8 with scales found at run time; networks whose weights are mostly convolutions get calibrated
    ones.

    Args:
        model: from ``plain``.
        precision: of ``artefact.PRECISIONS``.
        calibration: photos for the image encoder, each (3, size, size); none for the name encoder.
        tell: is called with a line of progress now and then.

    Returns:
        The candidate; None where the network has nothing to make smaller.
    """
    if precision == "fp16":
        return Candidate(cast(model), "cast")
    if calibration and is_convolutional(model):
        return _calibrated(model, calibration, tell)
    quantised = dynamic(model)
    return None if quantised is None else Candidate(quantised, "dynamic", ("weights of matrix products",))


def is_convolutional(model: onnx.ModelProto) -> bool:
    """Whether convolutions hold more weights than matrix products."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}

    def weights(*kinds: str) -> int:
        return sum(sizes.get(node.input[1], 0) for node in model.graph.node if node.op_type in kinds)

    return weights("Conv") > weights("MatMul", "Gemm")


def _calibrated(model: onnx.ModelProto, calibration: Sequence[Rows], tell: Callable[[str], None]) -> Candidate | None:
    """The first of a few attempts that is near enough on the calibration photos, else the nearest."""
    reference, best, nearest = _rows(model, calibration), None, -np.inf
    for first in FIRST:
        quantised = static(model, calibration, first)
        if quantised is None:
            break
        cosine = float((_rows(quantised, calibration) * reference).sum(1).mean())
        tell(f"  int8 with the first {first} convolutions in float32: mean cosine {cosine:.5f} on calibration photos")
        if cosine > nearest:
            kept = f"{len(calibration)} calibration photos; the first {first} convolutions in float32"
            best, nearest = Candidate(quantised, "static", (kept, "biases corrected")), cosine
        if cosine >= ENOUGH:
            break
    return best


def _rows(model: onnx.ModelProto, pixels: Sequence[Rows]) -> Rows:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        write_graph(path, model)
        graph = open_graph(path)
        return np.concatenate([graph(batch) for batch in batches(pixels)])
