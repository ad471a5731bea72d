from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_train.export.precision.float16 import cast
from sar_train.export.precision.plain import plain


def network() -> onnx.ModelProto:
    """Return relu(x W) twice with a layer norm between; the second product is used twice, as in unit rows."""
    rng = np.random.default_rng(0)
    weights = {"first": rng.normal(size=(6, 8)), "second": rng.normal(size=(8, 4)), "scale": np.ones(8)}
    tensors = {name: value.astype(np.float32) for name, value in weights.items()} | {"axes": np.array([1])}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("LayerNormalization", ["b", "scale"], ["c"]),
        helper.make_node("MatMul", ["c", "second"], ["d"]),
        helper.make_node("ReduceL2", ["d", "axes"], ["e"], keepdims=1),
        helper.make_node("Div", ["d", "e"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_products_are_half_and_norms_are_not() -> None:
    small = cast(network())
    onnx.checker.check_model(small, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
    assert types == {
        "first:half": TensorProto.FLOAT16,
        "second:half": TensorProto.FLOAT16,
        "scale": TensorProto.FLOAT,
        "axes": TensorProto.INT64,
    }
    kinds = " ".join(node.op_type for node in small.graph.node)
    assert kinds == "Cast MatMul Relu Cast LayerNormalization Cast MatMul Cast ReduceL2 Div"
    assert [value.type.tensor_type.elem_type for value in (*small.graph.input, *small.graph.output)] == [1, 1]


def test_it_computes_the_same_but_for_rounding() -> None:
    x = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    (full,), (half,) = (ReferenceEvaluator(model).run(None, {"x": x}) for model in (network(), cast(network())))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=4e-3)
    assert not np.array_equal(half, full)


def test_an_output_that_is_half_is_cast_back() -> None:
    model = network()
    del model.graph.node[4:]
    model.graph.node[3].output[0] = "embedding"
    small = cast(model)
    onnx.checker.check_model(small, full_check=True)
    assert small.graph.node[-1].op_type == "Cast"
    x = np.ones((2, 6), np.float32)
    np.testing.assert_allclose(
        ReferenceEvaluator(small).run(None, {"x": x})[0], ReferenceEvaluator(model).run(None, {"x": x})[0], atol=2e-2
    )


@pytest.mark.parametrize("file", [IMAGE_ENCODER, NAME_ENCODER])
def test_graphs_of_a_real_export(exported: Path, file: str) -> None:
    model = plain(exported / file)
    small = cast(model)
    onnx.checker.check_model(small, full_check=True)
    assert small.ByteSize() < 0.7 * model.ByteSize()
