"""INT8 graphs in two forms: transformers with scales found at run time, convolutional networks with calibrated ones."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnxruntime import quantization

from sar_train.export.precision.batches import Rows, batches
from sar_train.export.precision.correction import corrected
from sar_train.export.precision.plain import tidied

PRODUCTS = ("MatMul", "Gemm")


def dynamic(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Products with constant matrices in INT8: a scale for each column of weights, and for each input at run time.

    Returns:
        The graph; None where it has no such product.
    """
    products = matrix_products(model)
    if not products:
        return None
    chosen = {node.name for node in products}
    others = [node.name for node in model.graph.node if node.op_type in PRODUCTS and node.name not in chosen]
    with _folder() as folder:
        quantization.quantize_dynamic(
            model,
            folder / "int8.onnx",
            op_types_to_quantize=[*PRODUCTS],
            nodes_to_exclude=others,  # not the names of those chosen: Gemm nodes are renamed on the way
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
        )
        return tidied(onnx.load(folder / "int8.onnx"))


def static(model: onnx.ModelProto, pixels: Sequence[Rows], first: int) -> onnx.ModelProto | None:
    """Convolutions and what is between them in INT8, with the ranges that calibration photos show.

    Weights have a scale for each channel, activations one each (UINT8). The mean error that rounding the weights makes
    is taken back from the biases. The first ``first`` convolutions stay in float32, where rounding costs most: they
    are few, and see the picture itself, whose 256 levels lie between those of a symmetric range.

    Args:
        model: from ``plain``.
        pixels: calibration photos, each (3, size, size).
        first: convolutions that stay in float32.

    Returns:
        The graph; None where no convolution would be INT8.
    """
    kept, convolutions = kept_in_float(model, first)
    if not convolutions:
        return None
    with _folder() as folder:
        quantization.quantize_static(
            corrected(model, pixels, convolutions),
            folder / "int8.onnx",
            _Photos(model.graph.input[0].name, pixels),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
        )
        return tidied(onnx.load(folder / "int8.onnx"))


def matrix_products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes that multiply with a constant matrix; the keys and values of a prompt are constants of higher rank."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    return [n for n in model.graph.node if n.op_type in PRODUCTS and ranks.get(n.input[1]) == 2]


def kept_in_float(model: onnx.ModelProto, first: int) -> tuple[list[str], list[onnx.NodeProto]]:
    """Names of the nodes that stay in float32, with the bounds behind them, and the convolutions that do not."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    results = {node.output[0] for node in convolutions[:first]}
    bounds = [n for n in model.graph.node if n.op_type in ("Clip", "Relu") and n.input[0] in results]
    return [node.name for node in (*convolutions[:first], *bounds)], convolutions[first:]


class _Photos(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Calibration photos in batches, as onnxruntime wants them."""

    def __init__(self, name: str, pixels: Sequence[Rows]) -> None:
        self._batches = ({name: batch} for batch in batches(pixels))

    def get_next(self) -> dict[str, Rows] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the files that onnxruntime's tools pass on; what they say about their insides is kept back."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        logging.root.setLevel(level)
