"""The part of a run that changes during training, and how it goes through a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sar_train.methods.base import PromptMethod, Schedule

START_SCALE = 1024.0
"""Of the loss in float16. torch's own, 65,536, overflows in the first steps, which are then skipped."""


@dataclass
class State:
    """Everything that changes during training; ``tensors`` and ``restore`` carry it through a checkpoint, to the bit.

    Attributes:
        method: its parameters are trained.
        optimiser: with one group of parameters for each of the method's.
        rates: the learning rate of each group.
        data_rng, regulariser_rng: generators of their own, so that a regulariser does not change the order of images.
        scaler: scales the loss in float16.
        averaging: weights of the parameters after each epoch in the result, None for the last.
        average: their weighted sum so far, by name.
        epoch: how many are done.
        history: named means of the loss terms, an entry an epoch.
    """

    method: PromptMethod
    optimiser: torch.optim.Optimizer
    rates: Sequence[float]
    data_rng: torch.Generator
    regulariser_rng: torch.Generator
    scaler: torch.amp.GradScaler
    averaging: Sequence[float] | None = None
    average: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def end_epoch(self, entry: dict[str, float]) -> None:
        """Count an epoch and add the parameters to the average; after the last epoch the average becomes the result."""
        self.epoch += 1
        self.history.append(entry)
        if self.averaging is None:
            return
        for name, parameter in self.method.named_parameters():
            weighted = self.averaging[self.epoch - 1] * parameter.detach().float()
            self.average[name] = self.average[name] + weighted if name in self.average else weighted
        if self.epoch == len(self.averaging):
            for name, parameter in self.method.named_parameters():
                parameter.data.copy_(self.average[name])

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters, optimiser, average, loss scale and generator states by name."""
        tensors = {f"parameter.{name}": p.detach().clone() for name, p in self.method.named_parameters()}
        for name, parameter in self.method.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser.{key}.{name}"] = value.clone()
        tensors |= {f"average.{name}": value.clone() for name, value in self.average.items()}
        if self.scaler.is_enabled():
            scaler = self.scaler.state_dict()
            tensors["scaler"] = torch.tensor([scaler["scale"], scaler["_growth_tracker"]], dtype=torch.float64)
        tensors["rng.data"], tensors["rng.regulariser"] = self.data_rng.get_state(), self.regulariser_rng.get_state()
        return tensors

    def restore(self, tensors: dict[str, Tensor], epoch: int, history: list[dict[str, float]]) -> None:
        """Restore what `tensors` returned for a method of the same settings."""
        for name, parameter in self.method.named_parameters():
            parameter.data.copy_(tensors[f"parameter.{name}"])
            for key, value in tensors.items():
                if key.startswith("optimiser.") and key.split(".", 2)[2] == name:
                    held = value if key.split(".", 2)[1] == "step" else value.to(parameter.device)
                    self.optimiser.state[parameter][key.split(".", 2)[1]] = held.clone()
            if f"average.{name}" in tensors:
                self.average[name] = tensors[f"average.{name}"].to(parameter.device)
        if "scaler" in tensors:
            scale, growth = tensors["scaler"].tolist()
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": scale, "_growth_tracker": int(growth)})
        self.data_rng.set_state(tensors["rng.data"])
        self.regulariser_rng.set_state(tensors["rng.regulariser"])
        self.epoch, self.history = epoch, history


def start(method: PromptMethod, schedule: Schedule, seed: int, *, scaled: bool = False) -> State:
    """Make the state before the first epoch; images and regulariser draw from generators of their own.

    Args:
        method: at its start values.
        schedule: which optimiser, and its settings.
        seed: of both generators.
        scaled: scale the loss, for float16.
    """
    groups = method.groups(schedule.learning_rate)
    named = [{"params": parameters, "lr": rate} for parameters, rate in groups]
    optimiser: torch.optim.Optimizer
    if schedule.optimiser == "adam":
        optimiser = torch.optim.Adam(named, eps=schedule.eps, weight_decay=schedule.weight_decay)
    else:
        optimiser = torch.optim.SGD(named, momentum=schedule.momentum, weight_decay=schedule.weight_decay)
    device = next(method.parameters()).device.type
    return State(
        method,
        optimiser,
        [rate for _, rate in groups],
        torch.Generator().manual_seed(seed),
        torch.Generator().manual_seed(seed + 1_000_003),
        torch.amp.GradScaler(device, init_scale=START_SCALE, enabled=scaled),
        method.averaging(schedule.epochs),
    )
