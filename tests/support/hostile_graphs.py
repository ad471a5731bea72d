"""Bundles whose graphs never end or ask for all memory, under fitting digests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.sound import change

from sar_infer.bundle.manifest import IMAGE_ENCODER


def endless(folder: Path, encoder: str = IMAGE_ENCODER, above: int = 0) -> None:
    """Give a bundle an encoder that never ends for batches of more than ``above`` rows, under fitting digests."""
    path = folder / encoder
    model = onnx.load_from_string(path.read_bytes())
    graph, info = model.graph, helper.make_tensor_value_info
    for node in graph.node:
        node.output[:] = ["embedding_before" if name == "embedding" else name for name in node.output]
    constants = {"first": 0, "above": above, "trips": 2**62, "none": np.float32(0), "one": np.float32(1)}
    graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in constants.items())
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "one"], ["v_next"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, [])],
        [info("go_on", TensorProto.BOOL, []), info("v_next", TensorProto.FLOAT, [])],
    )
    graph.node.extend(
        [
            helper.make_node("Shape", [graph.input[0].name], ["sizes"]),
            helper.make_node("Gather", ["sizes", "first"], ["row_count"]),
            helper.make_node("Greater", ["row_count", "above"], ["start"]),
            helper.make_node("Loop", ["trips", "start", "none"], ["turns"], body=body),
            helper.make_node("Mul", ["turns", "none"], ["nothing"]),
            helper.make_node("Add", ["embedding_before", "nothing"], ["embedding"]),
        ]
    )
    path.write_bytes(model.SerializeToString())
    change(folder)
