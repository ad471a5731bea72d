"""The repository's graphs, run one after the other as its ensemble wires them, against the run time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sar_infer.classifier import Classifier
from sar_infer.classify.decision import scale
from sar_infer.encoders import scoring
from sar_infer.encoders.sessions import open_session
from sar_train.errors import ExportError
from sar_train.export.triton.config import EMBEDDING, ENCODER, PIXELS, PRODUCT, SCORES
from sar_train.export.verify import Rows, generated_pixels

PICTURES = 8
MAX_DIFFERENCE = 1e-5
"""Of a score: both sides compute the same products, in another order."""


def check_answers(folder: Path, classifier: Classifier) -> None:
    """See that scores are those of the run time for the same embeddings.

    Args:
        folder: The repository.
        classifier: With the bundle's bank; its image encoder may be another precision of the repository's.

    Raises:
        ExportError: a score differs by more than ``MAX_DIFFERENCE``.
    """
    spec, classes = classifier.bundle.manifest.preprocess, classifier.class_set()
    pixels = np.stack([generated_pixels(spec, seed) for seed in range(PICTURES)])
    (rows,) = _run(folder / ENCODER, [EMBEDDING], {PIXELS: pixels})
    (found,) = _run(folder / PRODUCT, [SCORES], {EMBEDDING: rows})
    how = scale(classifier.bundle.manifest, classes)
    expected = scoring.softmax(classifier.logits(rows, classes) / np.float32(how.temperature))
    shown = slice(None) if classes.background is None else ~classes.background
    difference = float(np.abs(found - expected[:, shown]).max())
    if not difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"bank product: scores differ from the run time by {difference:.3g}, expected at most {MAX_DIFFERENCE}; "
            "nothing was written"
        )


def _run(model: Path, outputs: list[str], feeds: dict[str, Rows]) -> list[Rows]:
    results: list[Rows] = open_session(model / "1" / "model.onnx", "cpu").run(outputs, feeds)
    return results
