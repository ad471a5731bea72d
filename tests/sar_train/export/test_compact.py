from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.tiny import tiny_backbone

from sar_train.clip.mini import storage
from sar_train.export.graph import as_float16, compact, int8_rows
from sar_train.export.image_encoder import export_image_encoder
from sar_train.training.prompted import handcrafted

RNG = np.random.default_rng(0)


def table_model(weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return ``table[tokens] @ matrix``."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["out"]),
    ]
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "L"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", "L", weights["matrix"].shape[1]])
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    return helper.make_model(
        helper.make_graph(nodes, "test", [tokens], [out], tensors),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def run(model: onnx.ModelProto, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def quantised(rows: int, width: int) -> np.ndarray:
    """Return a table as sar-mini has it after loading."""
    int8, scales = storage.quantise_rows(torch.from_numpy(RNG.normal(size=(rows, width)).astype(np.float32)))
    return (int8.float() * scales[:, None]).numpy()


def test_tensors_are_stored_small_and_give_the_same_bits() -> None:
    matrix = RNG.normal(size=(64, 128)).astype(np.float16).astype(np.float32)
    model = table_model({"table": quantised(500, 64), "matrix": matrix})
    small = compact(model)
    assert kinds(small) == {
        "table:int8": TensorProto.INT8,
        "table:scale": TensorProto.FLOAT,
        "matrix:float16": TensorProto.FLOAT16,
    }
    assert small.ByteSize() < 0.4 * model.ByteSize()
    onnx.checker.check_model(small, full_check=True)
    tokens = RNG.integers(0, 500, (7, 9))
    np.testing.assert_array_equal(run(small, tokens), run(model, tokens))


@pytest.mark.parametrize(
    ("table", "matrix"),
    [
        (RNG.normal(size=(500, 64)), RNG.normal(size=(64, 128))),  # would change
        (np.ones((4, 8)), np.ones((8, 2))),  # not worth a node
    ],
)
def test_other_tensors_are_left_alone(table: np.ndarray, matrix: np.ndarray) -> None:
    model = table_model({"table": table.astype(np.float32), "matrix": matrix.astype(np.float32)})
    assert compact(model) == model


def test_one_changed_bit_in_a_table_is_noticed_and_a_row_of_zeros_is_like_others() -> None:
    table = quantised(20, 64)
    table[7] = 0
    rows, scales = int8_rows(table) or pytest.fail("expected a table of INT8 rows")
    np.testing.assert_array_equal(rows * scales, table)
    table[3, 5] = np.nextafter(table[3, 5], np.float32(9))
    assert int8_rows(table) is None


@pytest.mark.parametrize("value", [1 + 2**-11, 70_000.0, 1e-9, np.nan])
def test_a_value_that_float16_does_not_have(value: float) -> None:
    assert as_float16(np.array([1.0, value], np.float32)) is None


def test_a_table_that_is_also_multiplied_with_stays_a_float_table() -> None:
    model = table_model({"table": quantised(500, 64), "matrix": np.eye(64, dtype=np.float32)})
    model.graph.node[1].input[0] = "table"
    model.graph.node[1].input[1] = "matrix"
    del model.graph.node[0]
    assert "table:int8" not in kinds(compact(model))


def test_batch_norms_still_melt_into_convolutions(tmp_path: Path) -> None:
    """onnxruntime computes the Casts before it looks for what it can fuse, so that a session has no trace of them."""
    backbone = tiny_backbone("tiny-resnet")
    model = export_image_encoder(handcrafted(backbone, "a {}."))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            halved = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(halved, tensor.name))
    small = compact(model)
    pixels = RNG.normal(size=(2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(run(small, pixels), run(model, pixels))
    assert operators(small, tmp_path / "small.onnx") == operators(model, tmp_path / "model.onnx")
    assert "BatchNormalization" not in operators(small, tmp_path / "small.onnx")


def operators(model: onnx.ModelProto, optimised: Path) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(optimised), 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return sorted(node.op_type for node in onnx.load(optimised).graph.node)
