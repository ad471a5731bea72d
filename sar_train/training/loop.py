"""The training loop: photos in random order, named loss terms, epoch after epoch, from wherever the state is."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sar_train.clip.backbone import Backbone
from sar_train.errors import RunError
from sar_train.methods.base import Schedule
from sar_train.training.state import State
from sar_train.training.step import Step
from sar_train.training.task import PLAIN, FewShotTask, Numerics, Regularisation

WARM_UP_RATE = 1e-5


def learning_rate(schedule: Schedule, epoch: int, rate: float | None = None) -> float:
    """The learning rate of an epoch (from 1), in the closed form of CoOp's schedule.

    1e-5 in the first epoch, then ``lr (1 + cos(pi (e - 2) / T)) / 2``: the values that KaiyangZhou/CoOp prints, whose
    wrapped schedulers depend on the PyTorch release. ``rate`` is lr where a group of parameters has its own.
    """
    if epoch == 1:
        return WARM_UP_RATE
    peak = schedule.learning_rate if rate is None else rate
    return peak * (1 + math.cos(math.pi * (epoch - 2) / schedule.epochs)) / 2


def train(
    backbone: Backbone,
    problem: FewShotTask,
    state: State,
    schedule: Schedule,
    regularisation: Regularisation | None = None,
    after_epoch: Callable[[State], None] = lambda state: None,
    numerics: Numerics = PLAIN,
) -> None:
    """Run the remaining epochs of ``state``, in place; ``after_epoch`` may save it or show progress.

    Raises:
        RunError: the loss is not finite.
    """
    step = Step(backbone, problem, state, regularisation, numerics)
    batches = max(1, len(problem.labels) // schedule.batch_size)  # the last, smaller batch is dropped, as in CoOp
    while state.epoch < schedule.epochs:
        epoch = state.epoch + 1
        for group, rate in zip(state.optimiser.param_groups, state.rates, strict=True):
            group["lr"] = learning_rate(schedule, epoch, rate)
        order = torch.randperm(len(problem.labels), generator=state.data_rng)
        sums: dict[str, float] = {}
        for batch in range(batches):
            rows = order[batch * schedule.batch_size : (batch + 1) * schedule.batch_size]
            progress = (state.epoch + batch / batches) / schedule.epochs
            for name, value in step(rows, progress).items():
                sums[name] = sums.get(name, 0.0) + value / batches
        if not all(math.isfinite(value) for value in sums.values()):
            raise RunError(
                f"the loss of epoch {epoch} is not finite ({sums}): lower --learning-rate, or use --precision fp32"
            )
        state.end_epoch({"epoch": epoch, "learning_rate": learning_rate(schedule, epoch), **sums})
        after_epoch(state)
