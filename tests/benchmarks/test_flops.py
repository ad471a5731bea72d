from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.throughput import operators
from benchmarks.throughput.flops import flops_of_open_clip, flops_per_image


def graph(path: Path, nodes: list[onnx.NodeProto], shape: list[int], weights: dict[str, tuple[int, ...]]) -> Path:
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
    target = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in weights.items()]
    made = helper.make_graph(nodes, "g", [source], [target], tensors)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("node", "shape", "weight", "expected"),
    [
        (helper.make_node("MatMul", ["x", "w"], ["y"]), [7, 5], (5, 3), 2 * 7 * 5 * 3),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), [5], (3, 5), 2 * 5 * 3),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), [5], (1, 3), 2 * 5 * 3),
        (helper.make_node("Conv", ["x", "w"], ["y"]), [4, 9, 8], (6, 4, 3, 3), 2 * 6 * 7 * 6 * (4 * 3 * 3)),
        (
            helper.make_node("Conv", ["x", "w"], ["y"], group=4, pads=[1, 1, 1, 1]),
            [4, 9, 8],
            (4, 1, 3, 3),
            2 * 4 * 9 * 8 * 9,
        ),
    ],
    ids=["MatMul", "Gemm", "Gemm turned", "Conv", "Conv by channel"],
)
def test_a_product_costs_two_for_each_multiply_add(
    tmp_path: Path, node: onnx.NodeProto, shape: list[int], weight: tuple[int, ...], expected: int
) -> None:
    assert flops_per_image(graph(tmp_path / "g.onnx", [node], shape, {"w": weight})) == expected


def test_computed_shapes_are_followed_and_other_nodes_cost_nothing(tmp_path: Path) -> None:
    """x (1, 6, 4) is reshaped to what Shape says of it, then multiplied by itself, turned."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Reshape", ["x", "s"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    assert flops_per_image(graph(tmp_path / "g.onnx", nodes, [6, 4], {})) == 2 * 6 * 6 * 4


def test_torch_and_the_graph_agree_on_the_shipped_model() -> None:
    bundle = Path(__file__).parents[2] / "exports" / "mini"
    assert flops_of_open_clip("sar-mini", None) == flops_per_image(bundle / "image_encoder.onnx")


def test_the_profile_counts_the_same_by_operator_and_takes_all_of_the_time() -> None:
    path = Path(__file__).parents[2] / "exports" / "mini" / "image_encoder.onnx"
    rows = operators.by_operator(operators.profile(path, batch=2, runs=2), peak=1e11, bandwidth=1e10)
    products = sum(row.flops for row in rows.values())  # onnxruntime pads channels to multiples of 8 or 16
    assert 1 <= products / (2 * flops_per_image(path)) < 1.1
    assert {"Conv, pointwise", "Conv, depthwise"} < set(rows)
    *_, total = operators.table(rows, 2, 1e11)
    seconds = sum(row.seconds for row in rows.values())
    assert total[:4] == ("all", sum(row.nodes for row in rows.values()), "100%", f"{500 * seconds:.2f}")
