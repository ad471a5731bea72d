"""Export a torch module with one input and one output as a plain ONNX graph.

The exporter's own optimisation is left out, because it folds batch norms into convolutions; the weights would then no
longer be those of the backbone, and `compact` could not store them small. onnxruntime folds them when it opens a
session. Here functions are inlined, constants folded, unused and duplicate values removed, and names made unique, so
that nothing tells which machine wrote the graph.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping

import onnx
import onnx_ir
import torch
from onnx_ir.passes import Sequential, common
from onnxscript import optimizer
from torch import Tensor, nn

from sar_train.errors import ExportError

OUTPUT = "embedding"
LIMIT: int = onnx.checker.MAXIMUM_PROTOBUF
"""Largest size of a graph in bytes; a bundle has no external data."""


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
    with _quiet(), torch.no_grad():
        model = translate(module, example, dynamic)
        _tidy(model)
    _name(model, input_name, dynamic)
    proto = onnx_ir.to_proto(model)
    del proto.graph.value_info[:]  # shapes of inner values, in the exporter's names of the dimensions
    if proto.ByteSize() > LIMIT:
        raise ExportError(f"the graph has {proto.ByteSize():,} bytes, above the {LIMIT:,} that one ONNX file can hold")
    return proto


def translate(module: nn.Module, example: Tensor, dynamic: Iterable[int]) -> onnx_ir.Model:
    """Return the graph as torch's exporter gives it, with initializers named as the module's tensors."""
    shapes = (dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC),)
    program = torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes=shapes, optimize=False, verbose=False)
    if program is None:
        raise ExportError("the exporter of torch gave no graph")
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's log messages and warnings; its errors are exceptions."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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
