"""The training loop: the schedule, the terms it sums, and what must not change anything."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from support.problems import problem, schedule, started, train
from support.tiny import tiny_backbone

from sar_train.errors import RunError
from sar_train.training import loop


def test_every_photo_is_seen_once_an_epoch_and_a_smaller_last_batch_is_dropped() -> None:
    state, observed = started("coop"), []
    coop = state.method
    state.method.terms = lambda outputs: observed.append(outputs.labels) or type(coop).terms(coop, outputs)
    train(state, "coop", schedule("coop", epochs=1, batch_size=8))
    assert torch.cat(observed).bincount().tolist() == [6, 6, 6, 6]
    observed.clear()
    state.epoch = 0
    train(state, "coop", schedule("coop", epochs=1, batch_size=7))
    assert [len(labels) for labels in observed] == [7, 7, 7]
    observed.clear()
    state.epoch = 0
    train(state, "coop", schedule("coop", epochs=1, batch_size=100))
    assert [len(labels) for labels in observed] == [24]


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    data = problem()
    broken = dataclasses.replace(data, features=data.features * math.nan)
    with pytest.raises(RunError, match="epoch 1 .*finite"):
        loop.train(loop.OptimiserStep(tiny_backbone(), broken, started("coop")), schedule("coop"))
