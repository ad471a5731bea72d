"""A Triton model repository without Triton: configurations by its own protobuf, models by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

KINDS = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(float16)": "TYPE_FP16"}


def read_config(repository: Path, model: str) -> Any:
    """``config.pbtxt`` as Triton reads it; an unknown field or value is an error."""
    text = (repository / model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def session(repository: Path, model: str) -> onnxruntime.InferenceSession:
    """The model's only version."""
    return onnxruntime.InferenceSession(repository / model / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def run_ensemble(repository: Path, model: str, tensors: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """What Triton's scheduler does: each step takes ensemble tensors by its map, and gives some."""
    config = read_config(repository, model)
    values = dict(tensors)
    for step in config.ensemble_scheduling.step:
        inner = session(repository, step.model_name)
        feeds = {theirs: values[ours] for theirs, ours in step.input_map.items()}
        for theirs, value in zip(step.output_map, inner.run(list(step.output_map), feeds), strict=True):
            values[step.output_map[theirs]] = np.asarray(value)
    return {port.name: values[port.name] for port in config.output}
