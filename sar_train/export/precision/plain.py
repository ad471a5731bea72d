"""Prepare the float graph that smaller ones are made from: constants computed, batch norms folded into convolutions.

onnxruntime does this when it opens a session; here its result is kept. Only its basic rewrites are taken, which give
operators of the ONNX standard.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnx_ir
import onnxruntime
from onnx_ir.passes import Sequential, common


def plain(path: Path) -> onnx.ModelProto:
    """Load a file's graph in float32, as onnxruntime's basic rewrites leave it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "plain.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    return tidied(model)


def tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put nodes in order and remove types of inner values and unused operator sets, which tools leave behind."""
    ir_model = onnx_ir.from_proto(model)
    ir_model.graph.sort()
    Sequential(common.RemoveUnusedNodesPass(), common.RemoveUnusedOpsetsPass())(ir_model)
    proto = onnx_ir.to_proto(ir_model)
    del proto.graph.value_info[:]
    return proto
