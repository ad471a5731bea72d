"""The work of a worker process, done here."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any

import numpy as np
import psutil
import pytest
from support.giants import GIANTS

from sar_infer.bundle.manifest import file_entry
from sar_infer.classifier import Classifier
from sar_infer.errors import ImageError
from sar_infer.processes.worker import Worker
from sar_infer.server.model.process import Model, Task, begin
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.settings import Limits


@pytest.fixture(scope="module")
def model() -> Model:
    mini = Classifier.open(device="cpu")
    bundle, file = mini.bundle, mini.bundle.path / mini.choice.image
    return Model(
        graph=str(file),
        sha256=file_entry(file).sha256,
        embed_dim=bundle.manifest.embed_dim,
        device="cpu",
        sizes=Sizes(True, 1, 1, 2, alone=4),
        probe=mini.self_test.image,
        trial_seconds=60,
        preprocess=bundle.manifest.preprocess,
        limits=Limits(),
    )


def test_a_worker_gives_way_to_the_front(model: Model) -> None:
    worker: Worker[Any] = Worker(functools.partial(begin, model))
    worker.loaded(60)
    assert psutil.Process(worker.pid).nice() == min(19, psutil.Process().nice() + 5)
    assert worker.ended() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts what is mapped on Linux alone")
def test_an_image_that_takes_more_memory_than_the_worker_may_have_is_refused_and_the_next_is_not(model: Model) -> None:
    model = dataclasses.replace(model, sizes=dataclasses.replace(model.sizes, memory=200 * 2**20))
    worker: Worker[Any] = Worker(functools.partial(begin, model))
    worker.loaded(60)
    giant, large = Task(GIANTS["PNG RGB"]((6000, 6000))), Task(GIANTS["PNG RGB"]((3000, 3000)))
    for refused, answered in (worker.answer(([giant, large], False)) for _ in range(3)):  # nothing of it stays
        assert isinstance(refused.row, ImageError)
        assert (refused.row.kind, isinstance(answered.row, np.ndarray)) == ("size", True)
    assert worker.ended() == 0
