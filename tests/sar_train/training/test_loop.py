"""The training loop: the schedule, the terms it sums, and what must not change anything."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from support.problems import problem, regularisation, schedule, started, train
from support.tiny import tiny_backbone

from sar_train.errors import RunError
from sar_train.methods.base import Schedule
from sar_train.training import loop
from sar_train.training.state import State


def trained(seed: int = 1, **settings: object) -> State:
    return train(started("coop", seed=seed), "coop", extra=regularisation(**settings) if settings else None)


def test_learning_rates_are_those_of_the_reference() -> None:
    """KaiyangZhou/CoOp#26 prints these for 50 epochs at 2e-3; the factors for 5 epochs follow."""
    fifty = Schedule(epochs=50, learning_rate=2e-3, batch_size=32)
    for epoch, rate in ((1, 1e-5), (2, 2.0e-3), (3, 1.998027e-3), (8, 1.929776e-3)):
        assert loop.learning_rate(fifty, epoch) == pytest.approx(rate, rel=1e-6)
    five = Schedule(epochs=5, learning_rate=1.0, batch_size=1)
    assert [round(loop.learning_rate(five, e), 4) for e in range(2, 6)] == [1, 0.9045, 0.6545, 0.3455]


def test_the_loss_falls_and_is_logged_by_name() -> None:
    history = trained(weight=1.0).history
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"] - 0.1
    assert history[0]["regulariser"] >= 0


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
