"""Floating point operations of one image: two for each multiply-add of the products, of an ONNX graph or of open_clip.

In a graph MatMul, Gemm and Conv are counted, which hold all but a few in a hundred; the rest is left out, so shares of
the peak that are made with this number are, if anything, too low. Shapes are those that occur: the graph runs once with
one image, since shape inference gives up at the first Reshape whose target is computed. The two numbers differ where a
graph leaves out what nobody reads, as the last layer of a vision transformer but for its class token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sar_train.clip import backbone

Shape = tuple[int, ...]
PRODUCTS = ("MatMul", "Gemm", "Conv")


def flops_per_image(path: Path) -> int:
    """Of a graph with one input (N, ...) and static sizes behind the first axis."""
    model = onnx.load(path)
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    shapes = _shapes(model, {name for node in products for name in (*node.input[:2], node.output[0])})
    return sum(_node(node, shapes) for node in products)


def flops_of_open_clip(name: str, pretrained: str | None) -> int:
    """Of the image side of a model, as torch counts them."""
    held = backbone.load(name, pretrained)
    model: Any = held.model
    for weight in model.parameters():
        weight.requires_grad_(True)  # without gradients torch takes an attention in one piece that it does not count
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.encode_image(torch.zeros(1, 3, held.preprocess.size, held.preprocess.size))
    return int(counter.get_total_flops())


def _shapes(model: onnx.ModelProto, names: set[str]) -> Mapping[str, Shape]:
    """Shapes of values, run with one image of zeros."""
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes |= {value.name: _declared(value) for value in graph.input}
    unknown = sorted(names - set(shapes))
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in unknown)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    results = session.run(unknown, {source.name: np.zeros((1, *source.shape[1:]), np.float32)})
    return shapes | {name: result.shape for name, result in zip(unknown, results, strict=True)}


def _declared(value: onnx.ValueInfoProto) -> Shape:
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)


def _node(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    first, second, out = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        inner = math.prod(second[1:])
    elif node.op_type == "Gemm" and any(attribute.name == "transA" and attribute.i for attribute in node.attribute):
        inner = first[0]
    else:
        inner = first[-1]
    return 2 * math.prod(out) * inner
