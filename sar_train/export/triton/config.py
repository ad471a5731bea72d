"""Triton's ``config.pbtxt``: protobuf text, of the message ``inference.ModelConfig``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ENCODER, PRODUCT, CLASSIFIER = "image_encoder", "bank_product", "classifier"
"""Models of the repository; clients ask the last."""
PIXELS, EMBEDDING, LOGITS, SCORES = "pixels", "embedding", "logits", "scores"
"""Tensors, under the same names wherever they appear."""
LABELS = "labels.txt"
MAX_BATCH = 32
"""The most images in one request, and in one run that serves several requests."""

Dims = Sequence[int]


class Word(str):
    """An enum's value, which is written without quotes."""

    __slots__ = ()


def model(name: str, inputs: Mapping[str, Dims], outputs: Mapping[str, Dims], kind: str = "KIND_AUTO") -> str:
    """Return the text for a model that onnxruntime runs: one instance where Triton puts it, requests batched.

    Args:
        name: The model's name.
        inputs: Sizes of the axes after the batch, by tensor.
        outputs: As ``inputs``.
        kind: Of the instance; ``KIND_AUTO`` is a GPU if there is one, else the CPU.
    """
    return _text(
        {
            "name": name,
            "platform": "onnxruntime_onnx",
            "max_batch_size": MAX_BATCH,
            **_ports(inputs, outputs),
            "dynamic_batching": {},
            "instance_group": [{"count": 1, "kind": Word(kind)}],
        }
    )


def ensemble(pixels: Dims, dim: int, classes: int) -> str:
    """Return the text for the model that clients ask: pixels to scores, logits and embedding."""
    return _text(
        {
            "name": CLASSIFIER,
            "platform": "ensemble",
            "max_batch_size": MAX_BATCH,
            **_ports({PIXELS: pixels}, {SCORES: [classes], LOGITS: [classes], EMBEDDING: [dim]}),
            "ensemble_scheduling": {
                "step": [_step(ENCODER, [PIXELS], [EMBEDDING]), _step(PRODUCT, [EMBEDDING], [LOGITS, SCORES])]
            },
        }
    )


def _ports(inputs: Mapping[str, Dims], outputs: Mapping[str, Dims]) -> dict[str, Any]:
    """Return inputs and outputs, all float32; scores come with labels."""
    return {
        "input": [_port(name, dims) for name, dims in inputs.items()],
        "output": [
            _port(name, dims) | ({"label_filename": LABELS} if name == SCORES else {}) for name, dims in outputs.items()
        ],
    }


def _port(name: str, dims: Dims) -> dict[str, Any]:
    return {"name": name, "data_type": Word("TYPE_FP32"), "dims": [*dims]}


def _step(name: str, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    """Return a step whose tensors have the same names in the ensemble."""
    return {
        "model_name": name,
        "model_version": -1,
        "input_map": [{"key": tensor, "value": tensor} for tensor in inputs],
        "output_map": [{"key": tensor, "value": tensor} for tensor in outputs],
    }


def _text(message: Mapping[str, Any]) -> str:
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        for item in value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]:
            if isinstance(item, dict):
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(item))
                yield "}"
            else:
                yield f"{name}: {item if isinstance(item, Word) else json.dumps(item)}"
