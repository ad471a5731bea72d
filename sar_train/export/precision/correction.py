"""Bias correction: what rounding a convolution's weights adds to its output on average is taken from its bias.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), section 4.2,
with the means of activations measured on photos: behind ReLU6 no activation is negative, so errors of weights do not
cancel out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sar_train.export.precision.batches import Rows, batches

STEPS = 127
"""Of a weight's scale, on either side of zero."""


def corrected(
    model: onnx.ModelProto, pixels: Sequence[Rows], convolutions: Sequence[onnx.NodeProto]
) -> onnx.ModelProto:
    """A copy of the model with the biases of these convolutions corrected.

    Args:
        model: float32, batch norms folded.
        pixels: photos, each (3, size, size).
        convolutions: nodes of the model; those without a bias of their own are left as they are.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    known = [n for n in convolutions if n.input[1] in tensors and len(n.input) > 2 and n.input[2] in tensors]
    if not known:
        return copied
    means = _means(model, pixels, list(dict.fromkeys(node.input[0] for node in known)))
    biases = {tensor.name: tensor for tensor in copied.graph.initializer}
    for node in known:
        weight, bias = numpy_helper.to_array(tensors[node.input[1]]), numpy_helper.to_array(tensors[node.input[2]])
        shift = mean_error(weight, means[node.input[0]])
        biases[node.input[2]].CopyFrom(numpy_helper.from_array(bias - shift, node.input[2]))
    return copied


def mean_error(weight: Rows, mean: Rows) -> Rows:
    """What rounding adds to each output channel (O), borders aside.

    Args:
        weight: (O, I / groups, kernel …).
        mean: (I) of the input's channels.
    """
    flat = weight.reshape(*weight.shape[:2], -1)
    scale = np.abs(flat).max((1, 2), keepdims=True) / STEPS
    scale[scale == 0] = 1
    error = (np.rint(flat / scale) * scale - flat).sum(2)
    groups = len(mean) // weight.shape[1]
    inputs = np.repeat(mean.reshape(groups, -1), len(weight) // groups, axis=0)
    result: Rows = (error * inputs).sum(1)
    return result


def _means(model: onnx.ModelProto, pixels: Sequence[Rows], names: Sequence[str]) -> dict[str, Rows]:
    """Mean of each channel (C) of inner values (N, C, H, W)."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    source = model.graph.input[0].name
    for name in names:
        probed.graph.node.append(helper.make_node("GlobalAveragePool", [name], [f"{name}:mean"]))
        probed.graph.output.append(helper.make_tensor_value_info(f"{name}:mean", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [f"{name}:mean" for name in names]
    runs = (session.run(wanted, {source: batch}) for batch in batches(pixels))
    totals = [sum(values) for values in zip(*([v.sum((0, 2, 3)) for v in found] for found in runs), strict=True)]
    return {name: (total / len(pixels)).astype(np.float32) for name, total in zip(names, totals, strict=True)}
