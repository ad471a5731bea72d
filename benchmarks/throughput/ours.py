"""Our side: a bundle in the run time, fp32 or smaller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.throughput.settings import Setting, batched
from sar_infer import Classifier
from sar_infer.images.prefetch import decode_image

TOP_K = 5


class Ours:
    """A classifier with its bank's classes.

    Args:
        bundle: Folder.
        precision: Of its encoders.
        threads: Of the encoder.
    """

    def __init__(self, bundle: Path, precision: str, threads: int) -> None:
        options: dict[str, Any] = {} if precision == "fp32" else {"precision": precision}
        self.classifier = Classifier.open(bundle, device="cpu", threads=threads, **options)
        self.classes = self.classifier.class_set()
        self.spec = self.classifier.bundle.manifest.preprocess
        self.classifier.start()

    def labels(self, paths: Iterable[Path], setting: Setting) -> Iterator[str]:
        """The best class of each photo, in order."""
        if setting.mode == "stream":
            for result in self.classifier.stream(paths, self.classes, TOP_K, setting.batch):
                yield result.predictions[0].label
        else:
            for batch in batched(paths, setting.batch):
                yield from self.rank(self.encode([self.decode(path) for path in batch]))

    def decode(self, path: Path) -> np.ndarray:
        """Pixels (3, size, size)."""
        return decode_image(path, self.spec)

    def encode(self, pixels: list[np.ndarray]) -> np.ndarray:
        """Unit rows (N, D)."""
        return self.classifier.embed_inputs(pixels)

    def rank(self, rows: np.ndarray) -> list[str]:
        """The best class of each row."""
        return [answers[0].label for answers in self.classifier.rank(rows, self.classes, TOP_K)]
