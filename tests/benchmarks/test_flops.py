from __future__ import annotations

from pathlib import Path

from benchmarks.throughput.flops import flops_of_open_clip, flops_per_image


def test_torch_and_the_graph_agree_on_the_shipped_model() -> None:
    bundle = Path(__file__).parents[2] / "exports" / "mini"
    assert flops_of_open_clip("sar-mini", None) == flops_per_image(bundle / "image_encoder.onnx")
