"""The model that the peers' servers run: our decoding, the bundle's ONNX file and bank, the five best classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, Preprocess
from sar_infer.class_model.model import log_probabilities
from sar_infer.classify.ranking import top_k
from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input


def setting(name: str, default: str) -> str:
    """A setting that the harness handed over; worker processes inherit it."""
    return os.environ.get(f"BENCH_{name}", default)


def decode(photo: bytes) -> np.ndarray:
    """The encoder's input (3, size, size) for a JPEG file."""
    return to_input(load_rgb(photo, _spec().fill), _spec())


class Engine:
    """A session and the bank's rows."""

    def __init__(self) -> None:
        bundle = open_bundle(Path(setting("BUNDLE", "")))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(setting("THREADS", "1"))
        self._session = onnxruntime.InferenceSession(
            bundle.path / IMAGE_ENCODER, options, providers=["CPUExecutionProvider"]
        )
        self._names, self._rows = bundle.bank.names, bundle.bank.embeddings
        self._scale = np.float32(bundle.manifest.logit_scale)

    def classify(self, pixels: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """An answer for each image."""
        rows = self._session.run(None, {"pixels": np.stack(pixels)})[0]
        logits = self._scale * (rows @ self._rows.T)
        scores = np.exp(log_probabilities(logits))
        return [
            {"predictions": [{"label": self._names[column], "score": float(scores[row, column])} for column in best]}
            for row, best in enumerate(top_k(logits, 5))
        ]


@cache
def _spec() -> Preprocess:
    return open_bundle(Path(setting("BUNDLE", ""))).manifest.preprocess
