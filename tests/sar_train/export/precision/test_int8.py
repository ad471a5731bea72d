from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sar_infer.bundle.manifest import NAME_ENCODER
from sar_train.export.precision.int8 import corrected, dynamic, kept_in_float, matrix_products, mean_error, static
from sar_train.export.precision.plain import plain
from sar_train.export.precision.variants import is_convolutional, smaller

SIZE = 12


def convolutions(count: int = 4, width: int = 8) -> onnx.ModelProto:
    """Return convolutions with ReLU6 between them, then the mean over positions, a matrix and unit rows."""
    rng = np.random.default_rng(0)
    tensors = {
        "low": np.float32(0),
        "high": np.float32(6),
        "space": np.array([2, 3]),
        "row": np.array([1]),
        "p": rng.normal(size=(width, 4)).astype(np.float32),
    }
    nodes, value, channels = [], "pixels", 3
    for i in range(count):
        tensors[f"w{i}"] = (rng.normal(size=(width, channels, 3, 3)) / channels).astype(np.float32)
        tensors[f"b{i}"] = rng.normal(size=width).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [value, f"w{i}", f"b{i}"], [f"c{i}"], name=f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("Clip", [f"c{i}", "low", "high"], [f"r{i}"], name=f"clip{i}"),
        ]
        value, channels = f"r{i}", width
    nodes += [
        helper.make_node("ReduceMean", [value, "space"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "p"], ["raw"], name="product"),
        helper.make_node("ReduceL2", ["raw", "row"], ["length"], keepdims=1),
        helper.make_node("Div", ["raw", "length"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (20, 3, SIZE, SIZE)).astype(np.float32)


def test_calibrated_convolutions(pixels: np.ndarray) -> None:
    model = convolutions()
    quantised = static(model, list(pixels[:12]), first=1)
    onnx.checker.check_model(quantised, full_check=True)
    weights = {tensor.name: tensor.data_type for tensor in quantised.graph.initializer}
    assert weights["w0"] == TensorProto.FLOAT
    assert [weights[f"w{i}_quantized"] for i in (1, 2, 3)] == [TensorProto.INT8] * 3
    cosines = (run(quantised, pixels[12:]) * run(model, pixels[12:])).sum(1)
    assert 0.999 < cosines.min() < 1


def test_the_first_layers_and_their_bounds_stay() -> None:
    names, others = kept_in_float(convolutions(), 2)
    assert names == ["conv0", "conv1", "clip0", "clip1"]
    assert [node.name for node in others] == ["conv2", "conv3"]


def test_nothing_left_to_make_smaller(pixels: np.ndarray) -> None:
    assert static(convolutions(2), list(pixels), first=2) is None
    empty = convolutions(1)
    del empty.graph.node[3]
    assert dynamic(empty) is None


def test_products_with_constant_matrices_alone_are_taken(exported: Path) -> None:
    model = plain(exported / NAME_ENCODER)
    products = {node.name for node in matrix_products(model)}
    kinds = Counter(node.op_type for node in model.graph.node)
    assert 0 < len(products) < kinds["MatMul"] + kinds["Gemm"]
    quantised = dynamic(model)
    onnx.checker.check_model(quantised, full_check=True)
    assert Counter(node.op_type for node in quantised.graph.node)["MatMulInteger"] == len(products)
    tokens = np.array([[300, 301, 49_407], [302, 303, 49_407]])
    cosines = (run(quantised, tokens) * run(model, tokens)).sum(1)
    assert 0.99 < cosines.min() < 1


def test_the_form_follows_from_the_network(exported: Path, pixels: np.ndarray) -> None:
    model, lines = convolutions(), []
    assert is_convolutional(model)
    candidate = smaller(model, "int8", list(pixels), lines.append)
    assert candidate is not None and candidate.method == "static"
    assert "20 calibration photos" in candidate.notes[0]
    assert lines and "mean cosine" in lines[0]
    names = plain(exported / NAME_ENCODER)
    assert not is_convolutional(names)
    assert [smaller(names, kind, (), lines.append).method for kind in ("fp16", "int8")] == ["cast", "dynamic"]


def rounded(weight: np.ndarray) -> np.ndarray:
    """Round each output channel to 127 steps on either side."""
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
    return (np.rint(weight / scale) * scale).astype(np.float32)


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
    exact = run(network(weight, bias, groups), x).mean((0, 2, 3))
    before = run(network(rounded(weight), bias, groups), x).mean((0, 2, 3))
    np.testing.assert_allclose(run(network(rounded(weight), after, groups), x).mean((0, 2, 3)), exact, atol=1e-5)
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
