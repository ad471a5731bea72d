"""The class model of a run, the choice of the prompt that it ranks with, and the trainings that this needs.

The class model under the hand-crafted prompt comes first. The learned prompt is compared with it by prompts that are
trained on one half of the classes each, so that the held-out classes are new to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sar_infer.class_model import cross_validation, folds
from sar_infer.class_model.model import linear
from sar_train.data.features import PhotoFeatures
from sar_train.data.progress import ProgressCallback
from sar_train.data.task import Task
from sar_train.methods.base import Setup
from sar_train.methods.base import methods as known_methods
from sar_train.training import loop
from sar_train.training.checkpoint import HANDCRAFTED, FittedClassModel, PromptName
from sar_train.training.context import Outline, RunContext
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.state import State

LEARNED: PromptName = "learned"
Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trainings:
    """The trainings of a run.

    Attributes:
        halves: whether the prompt is trained on each half of the classes, to compare it.
        whole: when it is trained on all classes.
        why: why nothing is compared; empty if something is.
    """

    halves: bool
    whole: Literal["always", "if better", "never"]
    why: str = ""


@dataclass(frozen=True, eq=False)
class Choice:
    """The prompt of a run's class model.

    Attributes:
        prompt: the prompt.
        fitted: the fit whose weights hold.
        scores: by which the prompts were compared, in per cent: means over classes.
        why: why this prompt.
    """

    prompt: PromptName
    fitted: cross_validation.Fitted
    scores: Mapping[PromptName, float]
    why: str


def trainings(run: Outline, labels: npt.NDArray[np.int64], *, for_tables: bool = False) -> Trainings:
    """Return the trainings that a run needs.

    Args:
        run: the run.
        labels: (N,) of the photos that it learns from.
        for_tables: train the method whatever its use, since methods are compared; so it is where new classes are
            tested, unless ``--prompt handcrafted`` is asked for.
    """
    config, method = run.config, run.method
    if not method.trains:
        return Trainings(halves=False, whole="never", why=f"method {config.method}")
    if not config.statistics:
        return Trainings(halves=False, whole="always")
    if config.prompt == HANDCRAFTED:
        return Trainings(halves=False, whole="always" if for_tables else "never", why="--prompt handcrafted")
    if config.prompt == LEARNED:
        why = "--prompt learned"
    elif obstacle := folds.obstacle(labels, len(run.plan.base)):
        why = f"not compared: {obstacle}"
    elif "image" in method.towers or not method.transfers:
        why = f"not compared: {config.method} cannot be trained on half of the classes"
    else:
        tables = for_tables or run.plan.protocol != "all"
        return Trainings(halves=True, whole="always" if tables else "if better")
    return Trainings(halves=False, whole="always", why=why)


def first(context: RunContext) -> cross_validation.Fitted:
    """Fit the class model under the hand-crafted prompt, which needs no training."""
    features, labels = _photos(context, None)
    rows = _handcrafted_rows(context, context.task.class_names)
    return cross_validation.fit(features, labels, rows, context.backbone.logit_scale, seed=context.config.seed)


def compare(context: RunContext, halves: Sequence[Rows], first: cross_validation.Fitted) -> Choice:
    """Choose the prompt by its score on held-out classes; both are compared in the same folds.

    The learned prompt has to be better by more than one standard error of the difference over classes.

    Args:
        context: of the run.
        halves: (C, D) rows under the prompt trained on each half of the classes, from `train_halves`.
        first: the class model under the hand-crafted prompt, which is used if that prompt is chosen.
    """
    features, labels = _photos(context, None)
    hand = _handcrafted_rows(context, context.task.class_names)
    scale, seed = context.backbone.logit_scale, context.config.seed
    rows = {HANDCRAFTED: (hand, hand), LEARNED: tuple(halves)}
    fits = {
        key: cross_validation.fit(features, labels, hand, scale, in_halves=two, seed=seed) for key, two in rows.items()
    }
    gains = 100 * (fits[LEARNED].scores - fits[HANDCRAFTED].scores)
    gain, error = float(gains.mean()), float(gains.std(ddof=1)) / len(gains) ** 0.5
    prompt = LEARNED if gain > error else HANDCRAFTED
    why = f"the learned one gains {gain:.1f} points, and needs more than the standard error over classes, {error:.1f}"
    chosen = fits[LEARNED] if prompt == LEARNED else first
    return Choice(prompt, chosen, {key: 100 * float(fit.scores.mean()) for key, fit in fits.items()}, why)


def finish(context: RunContext, choice: Choice, prompted: PromptedCLIP | None) -> FittedClassModel:
    """Return the class model of a run and its entry in the record.

    Args:
        context: of the run.
        choice: the prompt.
        prompted: the trained prompt; None if nothing was trained.
    """
    names, learned, fitted = context.task.class_names, choice.prompt == LEARNED, choice.fitted
    used = prompted if learned else None
    features, labels = _photos(context, used)
    rows = _handcrafted_rows(context, names) if used is None else used.embed(names).double().cpu().numpy()
    if used is not None and "image" in context.method.towers:  # the folds need the features of its own image tower
        hand = _handcrafted_rows(context, names)
        fitted = cross_validation.fit(features, labels, hand, context.backbone.logit_scale, seed=context.config.seed)
    model = fitted.model if used is None else cross_validation.reworded(fitted.model, features, labels, rows)
    means = np.stack([features[labels == label].mean(0) for label in range(len(names))]).astype(np.float32)
    measured = not np.isnan(fitted.auroc)
    entry = {
        "classes": len(names),
        "photos": len(labels),
        "defaults": fitted.why,
        "prompt": choice.prompt,
        "trained": prompted is not None,
        "comparison": {
            "learned": choice.scores.get(LEARNED),
            "handcrafted": choice.scores.get(HANDCRAFTED),
            "chosen": choice.prompt,
            "reason": choice.why,
        },
        "weights": model.weights.tolist(),
        "rivals": int(model.rivals),
        "expected": expected(fitted),
        "unknown": {
            "thresholds": [{"photos": n, "threshold": limit} for n, limit in model.unknown.tolist()],
            "auroc": fitted.auroc if measured else None,
            "false_alarms": 100 * fitted.false_alarms if measured else None,
            "rejected": 100 * fitted.rejected if measured else None,
        },
    }
    template = context.teacher if learned else context.template
    return FittedClassModel(model, means, np.bincount(labels, minlength=len(names)), choice.prompt, template, entry)


def expected(fitted: cross_validation.Fitted) -> list[dict[str, float]]:
    """Return the expected accuracies in per cent: of trained classes, and of classes added with a number of photos."""
    return [
        {"photos": int(n), "trained": 100 * trained, "accuracy": 100 * added}
        for n, trained, added in fitted.model.expected.tolist()
    ]


def logits_with(
    context: RunContext, prompted: PromptedCLIP | None, fitted: FittedClassModel, *, switched: bool = False
) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """Return a function from (N, D) unit image features and C names to logits (N, C) of the class model.

    Trained names have their photos, all others are classes added by name; ``switched`` gives these the hand-crafted
    prompt.
    """
    index = {name: row for row, name in reversed([*enumerate(context.task.class_names)])}
    learned = prompted if fitted.prompt == LEARNED else None

    def logits(images: Tensor, names: Sequence[str]) -> Tensor:
        own = None if switched and tuple(names) != tuple(context.task.class_names) else learned
        texts = _handcrafted_rows(context, names) if own is None else own.embed(names).cpu().numpy()
        rows = texts.astype(np.float32)
        means, counts = np.zeros_like(rows), np.zeros(len(names), dtype=np.int64)
        trained = [(column, index[name]) for column, name in enumerate(names) if name in index]
        if trained:
            columns, classes = (list(side) for side in zip(*trained, strict=True))
            means[columns], counts[columns] = fitted.means[classes], fitted.counts[classes]
        weights, bias = linear(fitted.model, rows, means, counts)
        return torch.from_numpy(images.cpu().numpy() @ weights[:-1].T + bias[:-1])

    return logits


def _photos(context: RunContext, prompted: PromptedCLIP | None) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Return (N, D) features and (N,) labels of the photos that are learned from, under image prompts if there are."""
    features = context.task.features[:, 0]
    if prompted is not None and "image" in context.method.towers and isinstance(context.features, PhotoFeatures):
        features = context.features.map_pixels("train", context.learned_rows, prompted.encode_images)
    return features.double().cpu().numpy(), context.task.labels.numpy().astype(np.int64)


def _handcrafted_rows(context: RunContext, names: Sequence[str]) -> Rows:
    return context.backbone.embed_names(names, context.template).double().cpu().numpy()


def train_halves(context: RunContext, tell: ProgressCallback) -> tuple[Rows, ...]:
    """Return (C, D) rows of all classes under the prompt trained, at the run's settings, on each half of the classes.

    No name of the other half takes part.

    Raises:
        RunError: training fails.
    """
    task, config, names = context.task, context.config, context.task.class_names
    rows: list[Rows] = []
    for number, half in enumerate(folds.halves(len(names), config.seed), start=1):
        index = {label: row for row, label in enumerate(half.tolist())}
        chosen = torch.tensor([row for row, label in enumerate(task.labels.tolist()) if label in index])
        own = [names[label] for label in index]
        labels = torch.tensor([index[label] for label in task.labels[chosen].tolist()])
        subset = Task(task.features[chosen], labels, own, task.handcrafted[list(index)])
        generator = torch.Generator().manual_seed(config.seed)
        kind = known_methods.get(config.method)
        method = kind(context.method.config, Setup(context.backbone, tuple(own), context.teacher, generator))
        if method.per_image:
            method.get_buffer("mean_image").copy_(subset.features[:, 0].mean(0))
        novel = context.novel
        if novel is not None:
            others = {name.casefold() for name in set(names) - set(own)}
            novel = dataclasses.replace(novel, names=tuple(n for n in novel.names if n.casefold() not in others))
        fold = dataclasses.replace(context, task=subset, method=method, novel=novel)

        def after(state: State, number: int = number) -> None:
            tell(f"epoch {state.epoch}/{context.schedule.epochs}  of half {number} of 2")

        loop.train(fold.step(fold.start()), fold.schedule, after)
        prompted = PromptedCLIP(context.backbone, method, context.teacher, own)
        rows.append(prompted.embed(names).double().cpu().numpy())
    return tuple(rows)
