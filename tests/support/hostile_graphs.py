"""Mutations of a bundle's graphs under fitting digests; importing this file registers them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.hostile_bundles import seal
from support.mutations import Chance, mutation

from sar_infer.bundle.manifest import BANK, IMAGE_ENCODER, MANIFEST, NAME_ENCODER


@mutation(sealed=True)
def damaged_graph(folder: Path, other: Path, chance: Chance) -> str:
    path = folder / chance.choice((IMAGE_ENCODER, NAME_ENCODER))
    data = bytearray(path.read_bytes())
    kind = chance.choice(("cut", "bits", "noise", "front"))
    if kind == "cut":
        del data[chance.randrange(len(data)) :]
    elif kind == "noise":
        data += chance.randbytes(chance.choice((1, 20, 1000)))
    else:
        reach = len(data) if kind == "bits" else min(300, len(data))
        for _ in range(chance.choice((1, 4, 16))):
            data[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    seal(folder)
    return f"{path.name}: {kind}"


@mutation(sealed=True)
def hostile_graph(folder: Path, other: Path, chance: Chance) -> str:
    path = folder / chance.choice((IMAGE_ENCODER, NAME_ENCODER))
    model = onnx.load_from_string(path.read_bytes())
    kind = chance.choice(sorted(_GRAPHS))
    _GRAPHS[kind](model, chance)
    path.write_bytes(model.SerializeToString())
    seal(folder)
    return f"{path.name}: {kind}"


def _external(model: onnx.ModelProto, chance: Chance) -> None:
    tensor = chance.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", chance.choice(("/etc/passwd", "../outside", MANIFEST, BANK))


def _hidden_external(model: onnx.ModelProto, chance: Chance) -> None:
    """In a constant inside a branch that never runs."""
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[2], name="far", data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["far"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("far", TensorProto.FLOAT, [2])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "never"))
    model.graph.node.append(helper.make_node("If", ["never"], ["unused"], then_branch=branch, else_branch=branch))


def _weights(value: float) -> Callable[[onnx.ModelProto, Chance], None]:
    def fill(model: onnx.ModelProto, chance: Chance) -> None:
        floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
        for tensor in floats:
            shape = tuple(tensor.dims)
            tensor.CopyFrom(numpy_helper.from_array(np.full(shape, value, dtype=np.float32), tensor.name))

    return fill


def _wrong_dims(model: onnx.ModelProto, chance: Chance) -> None:
    tensor = chance.choice(model.graph.initializer)
    tensor.dims[:] = chance.choice(([2**40], [-1], [0], [2**31, 2**31], [3, 5, 7]))


def _declared(model: onnx.ModelProto, chance: Chance) -> None:
    value = chance.choice((*model.graph.input, *model.graph.output))
    dims = value.type.tensor_type.shape.dim
    dims[chance.randrange(len(dims))].dim_value = chance.choice((0, 1, -1, 2**62))


def _twice_as_wide(model: onnx.ModelProto, chance: Chance) -> None:
    """The output is said to be (N, D) and is (N, 2 D)."""
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "embedding":
                node.output[index] = "narrow"
    model.graph.node.append(helper.make_node("Concat", ["narrow", "narrow"], ["embedding"], axis=1))
    dims = model.graph.output[0].type.tensor_type.shape.dim
    dims[1].dim_param = "D"


def _no_batch(model: onnx.ModelProto, chance: Chance) -> None:
    """Always gives three rows."""
    width = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "embedding":
                node.output[index] = "unused"
    rows = np.full((3, width), width**-0.5, dtype=np.float32)
    model.graph.node.append(
        helper.make_node("Constant", [], ["embedding"], value=numpy_helper.from_array(rows, "rows"))
    )


def _opset(model: onnx.ModelProto, chance: Chance) -> None:
    model.opset_import[0].version = chance.choice((0, 1, 999, 2**40))


def _operator(model: onnx.ModelProto, chance: Chance) -> None:
    chance.choice(model.graph.node).op_type = chance.choice(("", "Nothing", "Relu", "Concat", "Loop"))


def _circle(model: onnx.ModelProto, chance: Chance) -> None:
    model.graph.node[0].input[0] = "embedding"


_GRAPHS: dict[str, Callable[[onnx.ModelProto, Chance], None]] = {
    "external data": _external,
    "external data in a branch": _hidden_external,
    "weights of NaN": _weights(float("nan")),
    "weights of infinity": _weights(float("inf")),
    "weights of zero": _weights(0),
    "wrong dims": _wrong_dims,
    "wrong declaration": _declared,
    "output twice as wide": _twice_as_wide,
    "always three rows": _no_batch,
    "opset": _opset,
    "operator": _operator,
    "circle": _circle,
}


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
    seal(folder)


def huge(folder: Path) -> None:
    """Give a bundle an image encoder that asks for 4 TiB, under fitting digests."""
    path = folder / IMAGE_ENCODER
    model = onnx.load_from_string(path.read_bytes())
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["embedding_before" if name == "embedding" else name for name in node.output]
    constants = {"shape": np.array([2**40]), "axis": np.array([0])}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["many"]),
            helper.make_node("ReduceSum", ["many", "axis"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["embedding_before", "nothing"], ["embedding"]),
        ]
    )
    path.write_bytes(model.SerializeToString())
    seal(folder)
