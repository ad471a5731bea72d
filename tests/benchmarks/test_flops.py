from __future__ import annotations

from pathlib import Path

from benchmarks.throughput import operators
from benchmarks.throughput.flops import flops_of_open_clip, flops_per_image


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
