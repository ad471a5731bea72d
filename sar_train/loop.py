"""The training loop: sums named loss terms over cached features, and resumes to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sar_train.backbone import Backbone
from sar_train.errors import RunError
from sar_train.prompt_method import ForwardOutputs, PromptMethod, Schedule
from sar_train.prompts import Prompts
from sar_train.regulariser import Regulariser, RegulariserInputs
from sar_train.tokens import pack

WARM_UP_RATE = 1e-5


def learning_rate(schedule: Schedule, epoch: int) -> float:
    """The learning rate of an epoch (from 1), in the closed form of CoOp's schedule.

    1e-5 in the first epoch, then ``lr (1 + cos(pi (e - 2) / T)) / 2``: the values that KaiyangZhou/CoOp prints, whose
    wrapped schedulers depend on the PyTorch release.
    """
    if epoch == 1:
        return WARM_UP_RATE
    return schedule.learning_rate * (1 + math.cos(math.pi * (epoch - 2) / schedule.epochs)) / 2


@dataclass(frozen=True)
class Regularisation:
    """A regulariser with what it needs.

    Attributes:
        regulariser: the penalty.
        novel_names: names without photos.
        teacher: (n_base + n_novel, D) hand-crafted embeddings, base classes first.
    """

    regulariser: Regulariser
    novel_names: Sequence[str]
    teacher: Tensor


@dataclass(frozen=True)
class Problem:
    """What to learn from.

    Attributes:
        features: (N, V, D) unit image features of the shots, V views each.
        labels: (N,) 0 to C - 1.
        class_names: the C classes.
        handcrafted: (C, D) their hand-crafted embeddings.
    """

    features: Tensor
    labels: Tensor
    class_names: Sequence[str]
    handcrafted: Tensor


@dataclass
class State:
    """All that changes during training; ``tensors`` and ``restore`` carry it through a checkpoint, to the bit."""

    method: PromptMethod
    optimiser: torch.optim.Optimizer
    data_rng: torch.Generator
    regulariser_rng: torch.Generator
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, momentum and generator states by name."""
        found = {f"parameter.{name}": p.detach().clone() for name, p in self.method.named_parameters()}
        for name, parameter in self.method.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"optimiser.{key}.{name}"] = value.clone()
        found["rng.data"], found["rng.regulariser"] = self.data_rng.get_state(), self.regulariser_rng.get_state()
        return found

    def restore(self, tensors: dict[str, Tensor], epoch: int, history: list[dict[str, float]]) -> None:
        """Take over what `tensors` gave.

        Raises:
            RunError: the checkpoint is of another method or shape.
        """
        for name, parameter in self.method.named_parameters():
            stored = tensors.get(f"parameter.{name}")
            if stored is None or stored.shape != parameter.shape:
                raise RunError(
                    f"checkpoint does not fit the method: parameter {name} of shape {tuple(parameter.shape)}"
                )
            parameter.data.copy_(stored)
            for key, value in tensors.items():
                if key.startswith("optimiser.") and key.split(".", 2)[2] == name:
                    self.optimiser.state[parameter][key.split(".", 2)[1]] = value.clone()
        self.data_rng.set_state(tensors["rng.data"])
        self.regulariser_rng.set_state(tensors["rng.regulariser"])
        self.epoch, self.history = epoch, history


def start(method: PromptMethod, schedule: Schedule, seed: int) -> State:
    """The state before the first epoch; photos and regulariser draw from generators of their own."""
    optimiser = torch.optim.SGD(
        method.parameters(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    return State(
        method, optimiser, torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1_000_003)
    )


def train(
    backbone: Backbone,
    problem: Problem,
    state: State,
    schedule: Schedule,
    regularisation: Regularisation | None = None,
    after_epoch: Callable[[State], None] = lambda state: None,
) -> None:
    """Run the remaining epochs of ``state``, in place; ``after_epoch`` may save it or show progress."""
    step = _Step(backbone, problem, state, regularisation)
    batches = max(1, len(problem.labels) // schedule.batch_size)  # the last, smaller batch is dropped, as in CoOp
    while state.epoch < schedule.epochs:
        epoch = state.epoch + 1
        state.optimiser.param_groups[0]["lr"] = learning_rate(schedule, epoch)
        order = torch.randperm(len(problem.labels), generator=state.data_rng)
        sums: dict[str, float] = {}
        for batch in range(batches):
            rows = order[batch * schedule.batch_size : (batch + 1) * schedule.batch_size]
            progress = (state.epoch + batch / batches) / schedule.epochs
            for name, value in step(rows, progress).items():
                sums[name] = sums.get(name, 0.0) + value / batches
        if not all(math.isfinite(value) for value in sums.values()):
            raise RunError(f"the loss of epoch {epoch} is not finite ({sums}): lower --learning-rate")
        state.epoch = epoch
        state.history.append({"epoch": epoch, "learning_rate": learning_rate(schedule, epoch), **sums})
        after_epoch(state)


class _Step:
    """One optimiser step; token rows are made once."""

    def __init__(
        self, backbone: Backbone, problem: Problem, state: State, regularisation: Regularisation | None
    ) -> None:
        self._backbone, self._problem, self._state, self._regularisation = backbone, problem, state, regularisation
        self._device = backbone.device
        with torch.no_grad():
            self._shape_of = state.method.prompts()
        novel = list(regularisation.novel_names) if regularisation else []
        self._rows = backbone.text.tokenise([*problem.class_names, *novel], self._shape_of)
        self._n_base = len(problem.class_names)
        self._base = pack(self._rows[: self._n_base])

    def __call__(self, rows: Tensor, progress: float) -> dict[str, float]:
        images, labels = self._draw_views(rows), self._problem.labels[rows].to(self._device)
        prompts = self._state.method.prompts()
        weight = self._regularisation.regulariser.weight(progress) if self._regularisation else 0.0
        if self._regularisation and weight:
            prompted, penalty = self._with_novel(self._regularisation, prompts)
        else:
            prompted, penalty = self._backbone.text(prompts, self._base), None
        logits = self._backbone.logit_scale * images @ prompted.T
        terms = {"cross_entropy": cross_entropy(logits, labels)}
        terms |= self._state.method.terms(ForwardOutputs(images, prompted, self._problem.handcrafted, logits, labels))
        total = torch.stack(list(terms.values())).sum()
        if penalty is not None:
            terms["regulariser"] = penalty
            total = total + weight * penalty
        self._state.optimiser.zero_grad()
        total.backward()
        self._state.optimiser.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    def _draw_views(self, rows: Tensor) -> Tensor:
        """(B, D): one view of each photo."""
        views = torch.randint(self._problem.features.shape[1], (len(rows),), generator=self._state.data_rng)
        return self._problem.features[rows, views].to(self._device)

    def _with_novel(self, regularisation: Regularisation, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Base embeddings (C, D) and the penalty; base and drawn novel names go through the tower together."""
        drawn = regularisation.regulariser.draw(
            self._n_base, len(self._rows) - self._n_base, self._state.regulariser_rng
        )
        novel = drawn[drawn >= self._n_base]
        packed = pack([*self._rows[: self._n_base], *(self._rows[i] for i in novel.tolist())])
        embedded = self._backbone.text(prompts, packed)
        place = torch.cat([drawn[drawn < self._n_base], self._n_base + torch.arange(len(novel))]).to(self._device)
        inputs = RegulariserInputs(
            embedded[place], regularisation.teacher[drawn.to(self._device)], (drawn < self._n_base).to(self._device)
        )
        return embedded[: self._n_base], regularisation.regulariser(inputs)
