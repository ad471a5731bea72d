"""Export a torch module with one input and one output as a plain ONNX graph, and write graphs small.

The exporter's own optimisation is left out, because it folds batch norms into convolutions; the weights would then no
longer be those of the backbone, and `compact` could not store them small. onnxruntime folds them when it opens a
session. Here functions are inlined, constants folded, unused and duplicate values removed, and names made unique, so
that the graph does not depend on the machine.

`compact` makes a model smaller without changing one bit of what it computes. A float32 tensor whose values are all
float16 numbers (weights that were published or stored in float16) is stored as float16 with a Cast after it. A look-up
table whose rows are INT8 numbers times a scale for each row is stored as those; rows are gathered first and expanded
afterwards. onnxruntime computes constant Casts when it opens the model, so a running session is the same as before.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import torch
from onnx import helper, numpy_helper
from onnx_ir.passes import Sequential, common
from onnxscript import optimizer
from torch import Tensor, nn
from torch.nn.functional import normalize

from sar_infer.storage.files import write_file
from sar_train.clip.backbone import quiet
from sar_train.errors import ExportError

OUTPUT = "embedding"
LIMIT: int = onnx.checker.MAXIMUM_PROTOBUF
"""Largest size of a graph in bytes; a bundle has no external data."""
SMALLEST = 4096
"""Elements that a tensor needs to be worth a node."""
Floats = npt.NDArray[np.float32]


class OpenClipEncoder(nn.Module):
    """A tower as open_clip runs it, followed by normalisation to unit rows (N, D).

    Args:
        model: open_clip's model.
        method: ``encode_image``, of pixels (N, 3, H, W), or ``encode_text``, of tokens (N, L).
    """

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode."""
        return normalize(getattr(self.model, self.method)(inputs), dim=-1)


def trace(module: nn.Module, example: Tensor, *, input_name: str, dynamic: Mapping[int, str]) -> onnx.ModelProto:
    """Export ``module(example)``.

    Args:
        module: in evaluation mode.
        example: the input to trace with; a dimension in ``dynamic`` should be 2 or more.
        input_name: name of the graph's input.
        dynamic: dimensions of the input that may vary, with their names.

    Returns:
        A model with the input ``input_name`` and the output ``embedding``.

    Raises:
        ExportError: the graph is above 2 GiB.
    """
    with quiet("onnxscript"), warnings.catch_warnings(action="ignore"), torch.no_grad():
        model = translate(module, example, dynamic)
        _tidy(model)
    _name(model, input_name, dynamic)
    proto = onnx_ir.to_proto(model)
    del proto.graph.value_info[:]  # shapes of inner values, in the exporter's names of the dimensions
    if proto.ByteSize() > LIMIT:
        raise ExportError(f"the graph has {proto.ByteSize():,} bytes, more than the {LIMIT:,} of one ONNX file")
    return proto


def translate(module: nn.Module, example: Tensor, dynamic: Iterable[int]) -> onnx_ir.Model:
    """Return the graph as torch's exporter gives it, with initializers named as the module's tensors."""
    shapes = (dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC),)
    program = torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes=shapes, optimize=False, verbose=False)
    if program is None:
        raise ExportError("the exporter of torch gave no graph")
    return program.model


def _tidy(model: onnx_ir.Model) -> None:
    Sequential(common.InlinePass())(model)
    optimizer.fold_constants(model)
    Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
    )(model)


def _name(model: onnx_ir.Model, input_name: str, dynamic: Mapping[int, str]) -> None:
    """Name the input, its variable dimensions and the output, and number every other value.

    Values are renamed because the exporter calls the result of a look-up ``embedding`` too.
    """
    (source,), (result,) = model.graph.inputs, model.graph.outputs
    for i, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{i}"
        for k, value in enumerate(node.outputs):
            value.name = f"{node.name}_{k}"
    source.name, result.name = input_name, OUTPUT
    source.shape = onnx_ir.Shape([dynamic.get(axis, size) for axis, size in enumerate(source.shape or ())])
    result.shape = onnx_ir.Shape([dynamic[0], *(result.shape or ())[1:]])


def write_graph(path: Path, model: onnx.ModelProto) -> None:
    """Write a model as a file of a bundle: compact, checked, the same bytes every time."""
    small = compact(model)
    onnx.checker.check_model(small, full_check=True)
    write_file(path, small.SerializeToString(deterministic=True))


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the model in which every tensor is stored as small as it can be without loss."""
    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    nodes, tables = list[onnx.NodeProto](), set[str]()
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        users = readers[tensor.name]
        is_table = values.ndim == 2 and users and all(_looks_up(node, tensor.name) for node in users)
        if is_table and (quantised := int8_rows(values)):
            _replace(graph, tensor, {"int8": quantised[0], "scale": quantised[1]})
            tables.add(tensor.name)
        elif (half := as_float16(values)) is not None:
            _replace(graph, tensor, {"float16": half})
            nodes.append(helper.make_node("Cast", [f"{tensor.name}:float16"], [tensor.name], to=onnx.TensorProto.FLOAT))
    for node in graph.node:
        nodes += _gather_then_expand(node) if node.input and node.input[0] in tables else [node]
    del graph.node[:]
    graph.node.extend(nodes)
    return small


def as_float16(values: Floats) -> npt.NDArray[np.float16] | None:
    """Return the values as float16, or None if one of them would change."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else None


def int8_rows(table: Floats) -> tuple[npt.NDArray[np.int8], Floats] | None:
    """Return INT8 rows (V, W) and scales (V, 1) whose product is exactly ``table``, or None if there are none.

    The rule for the scale is that of `sar_train.clip.mini.storage`: the largest value of the row, in float16, is 127
    steps.
    """
    scales = np.abs(table).max(1, keepdims=True).astype(np.float16).astype(np.float32) / np.float32(127)
    rows = np.rint(np.divide(table, scales, out=np.zeros_like(table), where=scales > 0)).clip(-127, 127).astype(np.int8)
    return (rows, scales) if np.array_equal(rows * scales, table) else None


def _looks_up(node: onnx.NodeProto, table: str) -> bool:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    return node.op_type == "Gather" and node.input[0] == table and node.input[1] != table and axis == 0


def _replace(graph: onnx.GraphProto, old: onnx.TensorProto, tensors: dict[str, npt.NDArray[np.generic]]) -> None:
    graph.initializer.extend(numpy_helper.from_array(value, f"{old.name}:{kind}") for kind, value in tensors.items())
    graph.initializer.remove(old)


def _gather_then_expand(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return ``Cast(Gather(int8)) * Gather(scale)`` for ``Gather(table)``."""
    (table, ids), (result,) = node.input, node.output
    return [
        helper.make_node("Gather", [f"{table}:int8", ids], [f"{result}:int8"]),
        helper.make_node("Cast", [f"{result}:int8"], [f"{result}:float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table}:scale", ids], [f"{result}:scale"]),
        helper.make_node("Mul", [f"{result}:float", f"{result}:scale"], [result]),
    ]
