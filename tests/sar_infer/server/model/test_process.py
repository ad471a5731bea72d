"""Worker processes: what they decode and encode, their priority and their memory."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import pytest
from support.giants import GIANTS

from sar_infer._arrays import Floats
from sar_infer.classifier import Classifier
from sar_infer.errors import ImageError
from sar_infer.images.prefetch import decode_image
from sar_infer.processes.worker import Worker
from sar_infer.server.model.process import Computer, Task, begin
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.settings import Limits


@pytest.fixture(scope="module")
def mini() -> Classifier:
    return Classifier.open(device="cpu")


def started(mini: Classifier, memory: int = 0) -> Worker[Any]:
    graph, sizes = mini.bundle.path / mini.choice.image, Sizes(True, 1, 1, 2, alone=4, memory=memory)
    worker: Worker[Any] = Worker(
        functools.partial(begin, graph, mini.bundle.manifest, "cpu", "fp32", sizes, Limits(), 60)
    )
    worker.loaded(60)
    return worker


def test_a_worker_gives_way_to_the_front(mini: Classifier) -> None:
    worker = started(mini)
    assert psutil.Process(worker.pid).nice() == min(19, psutil.Process().nice() + 5)
    assert worker.ended() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts what is mapped on Linux alone")
def test_an_image_that_takes_more_memory_than_the_worker_may_have_is_refused_and_the_next_is_not(
    mini: Classifier,
) -> None:
    worker = started(mini, 200 * 2**20)
    giant, large = Task(GIANTS["PNG RGB"]((6000, 6000))), Task(GIANTS["PNG RGB"]((3000, 3000)))
    for refused, answered in (worker.answer(([giant, large], False)) for _ in range(3)):  # nothing of it stays
        assert isinstance(refused.row, ImageError)
        assert (refused.row.kind, isinstance(answered.row, np.ndarray)) == ("size", True)
    assert worker.ended() == 0


@pytest.mark.parametrize("fault", ["too many at once", "one spoils all"])
def test_a_batch_that_fails_or_is_spoilt_is_halved(mini: Classifier, fault: str) -> None:
    """INT8 graphs share ranges, so that one image's row that is not finite spoils those of its batch."""
    batches: list[int] = []

    def encode(inputs: Sequence[Floats], alone: bool) -> Floats:
        batches.append(len(inputs))
        rows = np.array([[pixels[0, 0, 0]] for pixels in inputs], np.float32)
        if fault == "too many at once" and len(inputs) > 1:
            raise MemoryError
        return rows + (np.nan if fault == "one spoils all" and (rows == rows_of[2]).any() else 0)

    spec = mini.bundle.manifest.preprocess
    images = [np.full((spec.size, spec.size, 3), level, np.uint8) for level in (0, 50, 100, 200)]
    rows_of = [decode_image(image, spec)[0, 0, 0] for image in images]
    computer = Computer(spec, Limits(), encode, 8)
    rows = [float(result.row[0, 0]) for result in computer([Task(image) for image in images])]  # type: ignore[index]
    assert rows == pytest.approx(
        [*rows_of[:2], np.nan if fault == "one spoils all" else rows_of[2], rows_of[3]], nan_ok=True
    )
    assert batches == [4, 2, 1, 1, 2, 1, 1] if fault == "too many at once" else [4, 2, 2, 1, 1]
