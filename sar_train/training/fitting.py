"""Class statistics of a run: fitted on its photos, and evaluated like every other branch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sar_infer.class_model import folds
from sar_infer.class_model.model import linear
from sar_train.data.features import PhotoFeatures
from sar_train.data.progress import ProgressCallback
from sar_train.data.task import Task
from sar_train.errors import RunError
from sar_train.methods.base import Setup
from sar_train.methods.base import methods as known_methods
from sar_train.training.checkpoint import FittedStatistics, PromptName
from sar_train.training.context import RunContext
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.state import State

HANDCRAFTED, LEARNED = "handcrafted", "learned"
EARNED = 0.5
"""Points by which the learned prompt has to be better than the hand-crafted one."""


def fit(context: RunContext, prompted: PromptedCLIP, tell: ProgressCallback = lambda text: None) -> FittedStatistics:
    """Fit class statistics on the photos that a run has learned from.

    Args:
        context: of the run.
        prompted: the trained prompt.
        tell: gets progress as short lines.

    Raises:
        SarTrainError: an image cannot be read, or training again fails.
    """
    names, config = context.task.class_names, context.config
    features = _features(context, prompted)[:, 0].double().cpu().numpy()
    labels, count = context.task.labels.numpy().astype(np.int64), len(names)
    rows = {HANDCRAFTED: _handcrafted_rows(context, names), LEARNED: prompted.embed(names).double().cpu().numpy()}
    scale, again, halves = context.backbone.logit_scale, False, ()
    if folds.obstacle(labels, count) is None and (again := trains_again(context)):
        tell("class model: training the prompt again in two folds of the classes, about as long as before")
        try:
            halves = _rows_in_folds(context, tell)
        except RunError as error:
            tell(f"Warning: class model: the folds take the hand-crafted prompt ({error})")
            again = False
    results = {}
    if not (again and config.prompt == LEARNED):
        results[HANDCRAFTED] = folds.fit(features, labels, rows[HANDCRAFTED], scale, seed=config.seed)
    if again:
        results[LEARNED] = folds.fit(features, labels, rows[LEARNED], scale, in_halves=halves, seed=config.seed)
    prompt: PromptName = "handcrafted" if config.prompt == HANDCRAFTED else "learned"
    if again and config.prompt == "auto":
        better = results[LEARNED].score - results[HANDCRAFTED].score >= EARNED / 100
        prompt = "learned" if better else "handcrafted"
    fitted = results.get(prompt) or folds.fit(features, labels, rows[prompt], scale, seed=config.seed)
    counts = np.bincount(labels, minlength=count)
    means = np.stack([features[labels == label].mean(0) for label in range(count)]).astype(np.float32)
    model = fitted.model
    entry = {
        "classes": count,
        "photos": len(labels),
        "defaults": fitted.why,
        "folds": "learned and hand-crafted prompt" if again else "hand-crafted prompt",
        "scores": {name: 100 * result.score for name, result in results.items() if result.why is None},
        "weights": model.weights.tolist(),
        "unknown": model.unknown,
        "rivals": model.rivals,
        "expected": [
            {"photos": int(n), "trained": 100 * trained, "accuracy": 100 * added}
            for n, trained, added in model.expected
        ],
        "prompt": prompt,
    }
    entry["comparison"] = _comparison(context, entry, prompt)
    template = context.teacher if prompt == LEARNED else context.template
    return FittedStatistics(model, means, counts, prompt, template, entry)


def logits_with(
    context: RunContext, prompted: PromptedCLIP, fitted: FittedStatistics
) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """Return a function from (N, D) unit image features and C names to logits (N, C) of the statistics' branch.

    Trained names have their photos, all others are classes added by name.
    """
    index = {name: row for row, name in reversed([*enumerate(context.task.class_names)])}

    def logits(images: Tensor, names: Sequence[str]) -> Tensor:
        rows = (
            prompted.embed(names).cpu().numpy()
            if fitted.prompt == LEARNED
            else _handcrafted_rows(context, names).astype(np.float32)
        )
        means, counts = np.zeros_like(rows), np.zeros(len(names), dtype=np.int64)
        trained = [(column, index[name]) for column, name in enumerate(names) if name in index]
        if trained:
            columns, classes = (list(side) for side in zip(*trained, strict=True))
            means[columns], counts[columns] = fitted.means[classes], fitted.counts[classes]
        weights, bias = linear(fitted.model, rows, means, counts)
        return torch.from_numpy(images.cpu().numpy() @ weights[:-1].T + bias[:-1])

    return logits


def _features(context: RunContext, prompted: PromptedCLIP) -> Tensor:
    """Return (N, V, D) features of the photos that are learned from, under image prompts where the method has them."""
    if "image" not in context.method.towers or not isinstance(context.features, PhotoFeatures):
        return context.task.features
    return context.features.map_pixels("train", context.learned_rows, prompted.encode_images)[:, None]


def _handcrafted_rows(context: RunContext, names: Sequence[str]) -> npt.NDArray[np.float64]:
    rows = context.backbone.embed_names(names, context.template)
    return rows.double().cpu().numpy()


def trains_again(context: RunContext) -> bool:
    """Return True if class statistics train the prompt again in two folds of the classes."""
    config, method = context.config, context.method
    takes_learned = config.prompt != HANDCRAFTED and not config.quick
    return takes_learned and "image" not in method.towers and method.transfers


def _rows_in_folds(context: RunContext, tell: ProgressCallback) -> tuple[npt.NDArray[np.float64], ...]:
    """Return (C, D) rows of all classes under the prompt trained on each half of them."""
    names, epochs = context.task.class_names, context.schedule.epochs

    def rows(fold: int, half: Sequence[int]) -> npt.NDArray[np.float64]:
        def after(state: State) -> None:
            tell(f"epoch {state.epoch}/{epochs}  of fold {fold} of 2")

        return _train_on(context, half, after).embed(names).double().cpu().numpy()

    halves = folds.halves(len(names), context.config.seed)
    return tuple(rows(fold, half.tolist()) for fold, half in enumerate(halves, start=1))


def _train_on(context: RunContext, class_labels: Sequence[int], after_epoch: Callable[[State], None]) -> PromptedCLIP:
    """Train the run's method, at its settings, on some of the run's classes; no name of the others takes part."""
    task, config = context.task, context.config
    index = {label: row for row, label in enumerate(class_labels)}
    rows = torch.tensor([row for row, label in enumerate(task.labels.tolist()) if label in index])
    names = [task.class_names[label] for label in class_labels]
    subset = Task(
        task.features[rows],
        torch.tensor([index[label] for label in task.labels[rows].tolist()]),
        names,
        task.handcrafted[list(class_labels)],
    )
    generator = torch.Generator().manual_seed(config.seed)
    kind = known_methods.get(config.method)
    method = kind(context.method.config, Setup(context.backbone, tuple(names), context.teacher, generator))
    if method.per_image:
        method.get_buffer("mean_image").copy_(subset.features[:, 0].mean(0))
    novel = context.novel
    if novel is not None:
        others = {name.casefold() for name in set(task.class_names) - set(names)}
        novel = dataclasses.replace(novel, names=tuple(n for n in novel.names if n.casefold() not in others))
    fold = dataclasses.replace(context, task=subset, method=method, novel=novel)
    fold.train(fold.start(), after_epoch)
    return PromptedCLIP(context.backbone, method, context.teacher, names)


def _comparison(context: RunContext, entry: Mapping[str, Any], prompt: PromptName) -> dict[str, Any]:
    """Return the best score of each prompt on classes that were left out, the prompt that was chosen, and why.

    The score is that by which prompt and alpha are chosen: the mean accuracy, in per cent, of trained classes and of
    classes left out, these by name alone and with a few photos.

    Args:
        context: of the run.
        entry: what was fitted.
        prompt: the prompt that was chosen.
    """
    best = entry["scores"]
    config, method = context.config, context.method
    if len(best) == 2:
        gain = best[LEARNED] - best[HANDCRAFTED]
        why = f"the learned one has to gain {EARNED:g} points and gains {gain:.1f}"
    elif config.prompt != "auto":
        why = f"--prompt {config.prompt} was asked for"
    elif entry["defaults"]:
        why = f"nothing could be compared: {entry['defaults']}"
    elif config.quick:
        why = "not compared: --quick"
    elif "image" in method.towers or not method.transfers:
        why = f"not compared: {config.method} cannot be trained again on some of the classes alone"
    else:
        why = "not compared: the prompt could not be trained again"
    return {"learned": best.get(LEARNED), "handcrafted": best.get(HANDCRAFTED), "chosen": prompt, "reason": why}
