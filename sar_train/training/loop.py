"""The training loop: images in random order, one optimiser step a batch, epoch after epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sar_train.clip.backbone import Backbone
from sar_train.clip.prompts import Prompts
from sar_train.clip.tokens import PackedTokens, pack
from sar_train.data.task import Task
from sar_train.errors import ConfigError, DivergedError
from sar_train.methods.base import Classes, ForwardOutputs, Schedule
from sar_train.regularisers.base import Regularisation, RegulariserInputs
from sar_train.training.state import State

TrainingPrecision = Literal["fp32", "bf16", "fp16"]
WARM_UP_RATE = 1e-5
_DTYPES: dict[TrainingPrecision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Of autocast; none in float32."""


def learning_rate(schedule: Schedule, epoch: int, rate: float | None = None) -> float:
    """Return the learning rate of an epoch (from 1), in the closed form of CoOp's schedule.

    1e-5 in the first epoch, then ``lr (1 + cos(pi (e - 2) / T)) / 2``: the values that KaiyangZhou/CoOp prints, whose
    wrapped schedulers depend on the PyTorch release. ``rate`` is lr where a group of parameters has its own.
    """
    if epoch == 1:
        return WARM_UP_RATE
    peak = schedule.learning_rate if rate is None else rate
    return peak * (1 + math.cos(math.pi * (epoch - 2) / schedule.epochs)) / 2


def train(step: OptimiserStep, schedule: Schedule, after_epoch: Callable[[State], None] = lambda state: None) -> None:
    """Run the remaining epochs of a step's state, in place.

    Args:
        step: the step, with the task to learn from.
        schedule: epochs, batches and learning rate.
        after_epoch: may save the state or show progress.

    Raises:
        DivergedError: the loss is not finite.
    """
    state, count = step.state, len(step.task.labels)
    batches = max(1, count // schedule.batch_size)  # the last, smaller batch is dropped, as in CoOp
    while state.epoch < schedule.epochs:
        epoch = state.epoch + 1
        for group, rate in zip(state.optimiser.param_groups, state.rates, strict=True):
            group["lr"] = learning_rate(schedule, epoch, rate)
        order = torch.randperm(count, generator=state.data_rng)
        sums: dict[str, float] = {}
        for batch in range(batches):
            rows = order[batch * schedule.batch_size : (batch + 1) * schedule.batch_size]
            progress = (state.epoch + batch / batches) / schedule.epochs
            for name, value in step(rows, progress).items():
                sums[name] = sums.get(name, 0.0) + value / batches
        if not all(math.isfinite(value) for value in sums.values()):
            raise DivergedError(
                f"training diverged: the loss of epoch {epoch} is not finite at --learning-rate "
                f"{schedule.learning_rate:g}; take a smaller one" + ", or --precision fp32" * (step.dtype is not None)
            )
        state.end_epoch({"epoch": epoch, "learning_rate": learning_rate(schedule, epoch), **sums})
        after_epoch(state)


@dataclass(frozen=True)
class _Drawn:
    """The names of one step: the base classes, then the novel ones that the regulariser drew.

    Attributes:
        classes: the names with their hand-crafted embeddings.
        packed: their tokens.
        chosen: (K,) which of them the regulariser looks at.
        teacher: (K, D) what it compares them with.
    """

    classes: Classes
    packed: PackedTokens
    chosen: Tensor | None = None
    teacher: Tensor | None = None


class OptimiserStep:
    """One optimiser step, called with the rows of a batch; token rows are made once."""

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        state: State,
        regularisation: Regularisation | None = None,
        *,
        precision: TrainingPrecision = "fp32",
        micro_batch: int = 0,
    ) -> None:
        """Tokenise all names.

        Args:
            backbone: the frozen CLIP.
            task: what to learn from.
            state: of the method and its optimiser.
            regularisation: a penalty added to the method's own terms.
            precision: of the towers; losses, normalisation and parameters stay in float32. ``fp16`` scales the loss.
            micro_batch: images that go through the towers at once; the gradients of the pieces of a batch are added
                up. 0 means the whole batch.
        """
        self._backbone, self.task, self.state = backbone, task, state
        self._regularisation, self.dtype, self._micro_batch = regularisation, _DTYPES[precision], micro_batch
        self._device = backbone.device
        self._parameters = list(state.method.parameters())
        self._names = list(task.class_names)
        self._handcrafted = task.handcrafted
        base = Classes(tuple(self._names), task.handcrafted)
        with torch.no_grad():
            shape = state.method.prompts(base)
        self._rows = backbone.text.tokenise(self._names, shape)
        self._base = _Drawn(base, pack(self._rows))
        if regularisation:
            self._names += regularisation.novel_names
            self._rows += backbone.text.tokenise(regularisation.novel_names, shape)
            self._handcrafted = torch.cat([task.handcrafted, regularisation.novel_handcrafted])
        first_index = {name: i for i, name in reversed([*enumerate(self._names)])}
        self._first = torch.tensor([first_index[name] == i for i, name in enumerate(self._names)])

    def __call__(self, rows: Tensor, progress: float) -> dict[str, float]:
        """Change the parameters once, and return the means of the terms over the batch.

        Args:
            rows: (B,) images of the batch.
            progress: share of the training that is done.
        """
        n_views = self.task.features.shape[1]
        # Random crops, or the plain view where there is no other.
        views = torch.randint(min(1, n_views - 1), n_views, (len(rows),), generator=self.state.data_rng)
        weight = self._regularisation.regulariser.weight(progress) if self._regularisation else 0.0
        drawn = self._draw(self._regularisation) if self._regularisation and weight else self._base
        self.state.optimiser.zero_grad()
        reference = [torch.zeros_like(p) for p in self._parameters] if self.state.method.reference_terms else []
        sums: dict[str, float] = {}
        size = self._micro_batch or len(rows)
        for piece in torch.arange(len(rows)).split(size):
            share = len(piece) / len(rows)
            terms, penalty = self._terms(rows[piece], views[piece], drawn)
            # Names are embedded under the prompt of the batch's first image, where prompts depend on the image.
            penalty_share = float(not sums) if self.state.method.per_image else share
            self._backward(terms, penalty_share * weight * penalty if penalty is not None else None, share, reference)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + share * float(value.detach())
            if penalty is not None:
                sums["regulariser"] = sums.get("regulariser", 0.0) + penalty_share * float(penalty.detach())
        self._update(reference)
        return sums

    def _draw(self, regularisation: Regularisation) -> _Drawn:
        """Take base names and drawn novel ones, which go through the tower together."""
        n_base = len(self.task.class_names)
        drawn = regularisation.regulariser.draw(n_base, len(self._rows) - n_base, self.state.regulariser_rng)
        drawn = drawn[self._first[drawn]]  # a name that two classes share, as ImageNet's *missile*, counts once
        novel = drawn[drawn >= n_base].tolist()
        everything = [*range(n_base), *novel]
        return _Drawn(
            Classes([self._names[i] for i in everything], self._handcrafted[everything]),
            pack([self._rows[i] for i in everything]),
            torch.cat([drawn[drawn < n_base], n_base + torch.arange(len(novel))]).to(self._device),
            regularisation.teacher[drawn.to(self._device)],
        )

    def _terms(self, rows: Tensor, views: Tensor, drawn: _Drawn) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return the method's terms, and the regulariser's unweighted penalty."""
        task, method, scale = self.task, self.state.method, self._backbone.logit_scale
        cached, labels = task.features[rows, views].to(self._device), task.labels[rows].to(self._device)
        embedded_crops = None
        if task.crops is not None and self._backbone.image is not None:
            crops = task.crops(rows, self.state.epoch + 1)
            embedded_crops = self._backbone.image.embed(crops.to(self._device))
        n_base = len(task.class_names)
        each = cached if method.per_image else [None]
        with self._autocast():
            prompts = [method.prompts(drawn.classes, image) for image in each]
            names = [self._base.packed if i else drawn.packed for i in range(len(prompts))]
            embedded = [self._backbone.text(p, packed) for p, packed in zip(prompts, names, strict=True)]
            images, frozen = self._images(prompts[0], cached, embedded_crops)
        prompted = embedded[0][:n_base]
        if method.per_image:
            pairs = zip(images, embedded, strict=True)
            logits = scale * torch.stack([image @ of_image[:n_base].T for image, of_image in pairs])
        else:
            logits = scale * images @ prompted.T
        outputs = ForwardOutputs(images, frozen, prompted, task.handcrafted, logits, labels, scale)
        penalty = None
        if self._regularisation and drawn.chosen is not None and drawn.teacher is not None:
            inputs = RegulariserInputs(embedded[0][drawn.chosen], drawn.teacher, drawn.chosen < n_base)
            penalty = self._regularisation.regulariser(inputs)
        return method.terms(outputs), penalty

    def _images(
        self, prompts: Prompts, cached: Tensor, embedded: Tensor | None
    ) -> tuple[Tensor, Tensor | Callable[[], Tensor]]:
        """Return (B, D) image features under image prompts, and those without; both are the cached ones without any.

        ``embedded`` are (B, T, W) inputs of the tower's first block for fresh crops.
        """
        if not prompts.image:
            return cached, cached
        tower = self._backbone.image
        if tower is None or embedded is None:
            raise ConfigError(
                "the method gives image prompts, but there is nothing to put them into: it has to name image among its "
                "towers, and the task needs crops"
            )

        @torch.no_grad()
        def frozen() -> Tensor:
            with self._autocast():
                return tower(dataclasses.replace(prompts, image={}), embedded)

        return tower(prompts, embedded), frozen

    def _backward(
        self, terms: dict[str, Tensor], penalty: Tensor | None, share: float, reference: list[Tensor]
    ) -> None:
        """Add to the parameters' gradients, and to ``reference`` those of the method's reference terms."""
        named, scaler = self.state.method.reference_terms, self.state.scaler
        if named:
            value = scaler.scale(share * torch.stack([terms[name] for name in named]).sum())
            gradients = torch.autograd.grad(value, self._parameters, retain_graph=True, allow_unused=True)
            for accumulated, gradient in zip(reference, gradients, strict=True):
                if gradient is not None:
                    accumulated.add_(gradient)
        plain_terms = [term for name, term in terms.items() if name not in named]
        total = share * torch.stack(plain_terms).sum()
        if penalty is not None:
            total = total + penalty
        scaler.scale(total).backward()

    def _update(self, reference: list[Tensor]) -> None:
        scaler, optimiser = self.state.scaler, self.state.optimiser
        if reference:
            # A common loss scale changes neither the sign of a product nor the direction, so it may stay in both.
            for parameter, other in zip(self._parameters, reference, strict=True):
                if parameter.grad is not None:
                    combined = self.state.method.project_gradient(parameter.grad, other)
                    # An overflow in float16 has to reach the scaler, which then leaves the step out.
                    parameter.grad.copy_(combined if other.isfinite().all() else torch.full_like(combined, torch.inf))
        scaler.step(optimiser)
        scaler.update()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self._device.type, self.dtype) if self.dtype else contextlib.nullcontext()
