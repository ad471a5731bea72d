"""INT8 graphs in two forms: transformers with scales found at run time, convolutional networks with calibrated ones."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from sar_infer._arrays import Floats
from sar_train.export.precision.plain import tidied
from sar_train.export.precision.samples import batches

PRODUCTS = ("MatMul", "Gemm")


def dynamic(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Quantise products with constant matrices: a scale for each column of weights, and for each input at run time.

    Returns:
        The graph; None if it has no such product.
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


def static(model: onnx.ModelProto, pixels: Sequence[Floats], first: int) -> onnx.ModelProto | None:
    """Quantise convolutions and what lies between them, with the ranges that calibration images show.

    Weights have a scale for each channel, activations one each (UINT8). The mean error from rounding the weights is
    subtracted from the biases. The first ``first`` convolutions stay in float32, where rounding costs most: they
    are few, and they read the image itself, whose 256 levels fall between those of a symmetric range.

    Args:
        model: as ``plain`` returns it.
        pixels: calibration photos, each (3, size, size).
        first: convolutions that stay in float32.

    Returns:
        The graph; None if no convolution would be INT8.
    """
    excluded, convolutions = kept_in_float(model, first)
    if not convolutions:
        return None
    with _folder() as folder:
        quantization.quantize_static(
            corrected(model, pixels, convolutions),
            folder / "int8.onnx",
            _Images(model.graph.input[0].name, pixels),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=excluded,
        )
        return tidied(onnx.load(folder / "int8.onnx"))


def matrix_products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes that multiply with a constant matrix; a prompt's keys and values have a higher rank."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    return [n for n in model.graph.node if n.op_type in PRODUCTS and ranks.get(n.input[1]) == 2]


def kept_in_float(model: onnx.ModelProto, first: int) -> tuple[list[str], list[onnx.NodeProto]]:
    """Return the names of the nodes that stay in float32, bounds included, and the convolutions that do not."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    results = {node.output[0] for node in convolutions[:first]}
    bounds = [n for n in model.graph.node if n.op_type in ("Clip", "Relu") and n.input[0] in results]
    return [node.name for node in (*convolutions[:first], *bounds)], convolutions[first:]


class _Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Calibration images in batches, as onnxruntime wants them."""

    def __init__(self, name: str, pixels: Sequence[Floats]) -> None:
        self._batches = ({name: batch} for batch in batches(pixels))

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Open a temporary folder for onnxruntime's tools, and silence their log messages."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        logging.root.setLevel(level)


STEPS = 127
"""Steps of a weight's scale on either side of zero."""


def corrected(
    model: onnx.ModelProto, pixels: Sequence[Floats], convolutions: Sequence[onnx.NodeProto]
) -> onnx.ModelProto:
    """Return a copy of the model with the biases of these convolutions corrected.

    The mean error that rounding the weights adds to an output is subtracted from its bias: Nagel et al., "Data-Free
    Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), section 4.2, with the means of
    activations measured on images. After ReLU6 no activation is negative, so errors of weights do not cancel out.

    Args:
        model: float32, batch norms folded.
        pixels: photos, each (3, size, size).
        convolutions: nodes of the model; those without a bias are left as they are.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    biased = [n for n in convolutions if n.input[1] in tensors and len(n.input) > 2 and n.input[2] in tensors]
    if not biased:
        return copied
    means = _means(model, pixels, list(dict.fromkeys(node.input[0] for node in biased)))
    biases = {tensor.name: tensor for tensor in copied.graph.initializer}
    for node in biased:
        weight, bias = numpy_helper.to_array(tensors[node.input[1]]), numpy_helper.to_array(tensors[node.input[2]])
        shift = mean_error(weight, means[node.input[0]])
        biases[node.input[2]].CopyFrom(numpy_helper.from_array(bias - shift, node.input[2]))
    return copied


def mean_error(weight: Floats, mean: Floats) -> Floats:
    """Return the mean error of each output channel (O) from rounding the weights, ignoring borders.

    Args:
        weight: (O, I / groups, kernel …).
        mean: (I) of the input's channels.
    """
    flat = weight.reshape(*weight.shape[:2], math.prod(weight.shape[2:]))
    scale = np.abs(flat).max((1, 2), keepdims=True) / STEPS
    scale[scale == 0] = 1
    error = (np.rint(flat / scale) * scale - flat).sum(2)
    groups = len(mean) // weight.shape[1]
    inputs = np.repeat(mean.reshape(groups, -1), len(weight) // groups, axis=0)
    return (error * inputs).sum(1).astype(np.float32, copy=False)


def _means(model: onnx.ModelProto, pixels: Sequence[Floats], names: Sequence[str]) -> dict[str, Floats]:
    """Return the mean of each channel (C) of inner values (N, C, H, W)."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    source = model.graph.input[0].name
    for name in names:
        probed.graph.node.append(helper.make_node("GlobalAveragePool", [name], [f"{name}:mean"]))
        probed.graph.output.append(helper.make_tensor_value_info(f"{name}:mean", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [f"{name}:mean" for name in names]
    runs = (session.run(outputs, {source: batch}) for batch in batches(pixels))
    totals = [sum(values) for values in zip(*([v.sum((0, 2, 3)) for v in maps] for maps in runs), strict=True)]
    return {name: (total / len(pixels)).astype(np.float32) for name, total in zip(names, totals, strict=True)}
