from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sar_train.export.precision.correction import corrected, mean_error


def rounded(weight: np.ndarray) -> np.ndarray:
    """Each output channel to 127 steps on either side."""
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
    return (np.rint(weight / scale) * scale).astype(np.float32)


def run(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, groups: int) -> np.ndarray:
    model = network(weight, bias, groups)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def network(weight: np.ndarray, bias: np.ndarray, groups: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", group=groups)],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", len(weight), None, None])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(("groups", "kernel"), [(1, 1), (2, 1), (8, 3)])
def test_the_mean_of_a_rounded_convolution_is_that_of_the_exact_one(groups: int, kernel: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(16, 8 // groups, kernel, kernel)).astype(np.float32)
    bias = rng.normal(size=16).astype(np.float32)
    level = rng.uniform(0, 3, (1, 8, 1, 1))  # without noise, so that every position has the mean exactly
    x = np.broadcast_to(level, (12, 8, 6, 6)).astype(np.float32)
    model = network(weight, bias, groups)
    new = corrected(model, list(x), list(model.graph.node))
    (after,) = [numpy_helper.to_array(t) for t in new.graph.initializer if t.name == "b"]
    exact = run(weight, bias, x, groups).mean((0, 2, 3))
    before = run(rounded(weight), bias, x, groups).mean((0, 2, 3))
    np.testing.assert_allclose(run(rounded(weight), after, x, groups).mean((0, 2, 3)), exact, atol=1e-5)
    assert np.abs(before - exact).max() > 1e-3
    np.testing.assert_array_equal(numpy_helper.to_array(new.graph.initializer[0]), weight)


def test_weights_that_need_no_rounding_need_no_correction() -> None:
    whole = np.random.default_rng(0).integers(-127, 128, (4, 3, 2, 2)).astype(np.float32)
    whole[:, 0, 0, 0] = 127
    np.testing.assert_array_equal(mean_error(whole, np.ones(3, np.float32)), 0)
    np.testing.assert_array_equal(mean_error(np.zeros_like(whole), np.ones(3, np.float32)), 0)


def test_a_convolution_without_a_bias_is_left_alone() -> None:
    model = network(np.ones((2, 8, 1, 1), np.float32), np.zeros(2, np.float32), 1)
    del model.graph.node[0].input[2]
    assert corrected(model, [np.ones((8, 6, 6), np.float32)], list(model.graph.node)) == model
