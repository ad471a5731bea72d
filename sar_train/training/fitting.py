"""Class statistics of a run: fitted on its photos, and evaluated like every other branch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sar_infer.classifiers import left_out
from sar_infer.classifiers.fitting import chosen
from sar_infer.classifiers.gaussian import Gaussian, assemble, gaussian, separation
from sar_infer.classifiers.left_out import HANDCRAFTED, LEARNED, Prompt
from sar_infer.classifiers.left_out_confidence import fit_confidences
from sar_infer.classifiers.statistics import Statistics, composed
from sar_train.clip.backbone import Backbone
from sar_train.data.feature_file import DEMO_FILE, load_features
from sar_train.data.features import PhotoFeatures
from sar_train.data.progress import ProgressCallback
from sar_train.data.task import Task
from sar_train.errors import DataError, RunError
from sar_train.methods.base import Setup
from sar_train.methods.base import methods as known_methods
from sar_train.training.checkpoint import FittedStatistics, PromptName
from sar_train.training.context import RunContext
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.state import State

_REFERENCE_SHOTS = 16
_ENOUGH_PHOTOS = 4
"""Photos a class with which half of them still have a scatter of their own."""


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
    features = _features(context, prompted).double().cpu().numpy()
    labels, count = context.task.labels.numpy().astype(np.int64), len(names)
    handcrafted = _handcrafted_rows(context, names)
    learned = prompted.embed(names).double().cpu().numpy()
    scale = context.backbone.logit_scale
    why = left_out.fittable(labels, count)
    few = why is not None or np.median(np.bincount(labels, minlength=count)) < _ENOUGH_PHOTOS
    reference = _Reference.of(context.backbone) if few else None
    scatter = None if reference is None else reference.scatter
    entry: dict[str, Any] = {"classes": count, "photos": len(labels), "defaults": why}
    model = gaussian(features[:, 0], labels, count, scatter)
    prompt: PromptName = "handcrafted" if config.prompt == HANDCRAFTED else "learned"
    rows = {LEARNED: learned, HANDCRAFTED: handcrafted}
    if why is None:
        again = trains_again(context)
        candidates = [Prompt(HANDCRAFTED, handcrafted)]
        if again:
            tell("class statistics: training the prompt again in two folds of the classes, about as long as before")
            try:
                in_fold = _rows_in_folds(context, tell)
                candidates = [*candidates, Prompt(LEARNED, learned, in_fold)][config.prompt == LEARNED :]
            except RunError as error:
                tell(f"Warning: class statistics: the folds take the hand-crafted prompt ({error})")
                again = False
        choice = left_out.choose(features, labels, candidates, scale, reference=scatter, seed=config.seed)
        entry |= _entry(choice, retrained=again)
        if again and config.prompt == "auto":
            prompt = "handcrafted" if choice.prompt == HANDCRAFTED else "learned"
        statistics = chosen(choice, model, rows[prompt], separation(features[:, 0], labels, count))
        evaluated = next((item for item in candidates if item.name == prompt), candidates[0])
        trust, text_trust = fit_confidences(
            features, labels, evaluated, scale, choice, reference=scatter, seed=config.seed
        )
        statistics = dataclasses.replace(statistics, confidence=trust, text_confidence=text_trust)
        entry["temperature"] = None if trust is None else trust.temperature
    else:
        statistics = _unfitted(model, rows[prompt], reference, scale)
    template = context.teacher if prompt == LEARNED else context.template
    numbers = {
        "prompt": prompt,
        "comparison": _comparison(context, entry, prompt),
        "slope": statistics.slope,
        "prior": statistics.prior,
    }
    entry = {"alpha": statistics.alpha, **entry, **numbers, "offsets": [list(pair) for pair in statistics.offsets]}
    return FittedStatistics(statistics, prompt, template, entry)


def logits_with(
    context: RunContext, prompted: PromptedCLIP, fitted: FittedStatistics
) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """Return a function from (N, D) unit image features and C names to logits (N, C) of the statistics' branch.

    Trained names have their photos, all others are classes added by name.
    """
    index = {name: row for row, name in reversed([*enumerate(context.task.class_names)])}
    statistics = fitted.statistics

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
            means[columns], counts[columns] = statistics.means[classes], statistics.counts[classes]
        weights, bias = composed(statistics, context.backbone.logit_scale, rows, means, counts)
        return torch.from_numpy((images.cpu().numpy() - statistics.centre) @ weights.T + bias)

    return logits


def _unfitted(model: Gaussian, rows: npt.NDArray[np.float64], reference: _Reference | None, scale: float) -> Statistics:
    """Return statistics where no class can be left out: with the numbers of a backbone's own photos, or the defaults.

    Args:
        model: of the run's photos.
        rows: (C, D) unit text rows.
        reference: the backbone's own photos, if it has any.
        scale: the logit scale.
    """
    if reference is not None:
        fallback = reference.statistics(scale)
        return assemble(
            model,
            rows,
            alpha=fallback.alpha,
            offsets=fallback.offsets,
            b=fallback.slope,
            curve=fallback.curve,
            separation=fallback.separation,
        )
    return dataclasses.replace(
        Statistics.default(len(model.centre), model.centre.astype(np.float32), scale=scale),
        text_centre=rows.mean(0).astype(np.float32),
        means=model.means.astype(np.float32),
        counts=model.counts,
    )


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

    halves = left_out.halves(len(names), context.config.seed)
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


def _entry(choice: left_out.LeftOutResult, *, retrained: bool) -> dict[str, Any]:
    return {
        "alpha": choice.alpha,
        "folds": "learned and hand-crafted prompt" if retrained else "hand-crafted prompt",
        "scores": {name: {str(alpha): score for alpha, score in of.items()} for name, of in choice.scores.items()},
        "trained": {str(photos): accuracy for photos, accuracy in choice.trained.items()},
        "expected": [dataclasses.asdict(item) for item in choice.expected],
    }


def _comparison(context: RunContext, entry: Mapping[str, Any], prompt: PromptName) -> dict[str, Any]:
    """Return the best score of each prompt on classes that were left out, the prompt that was chosen, and why.

    The score is that by which prompt and alpha are chosen: the mean accuracy, in per cent, of trained classes and of
    classes left out, these by name alone and with a few photos.

    Args:
        context: of the run.
        entry: what was fitted.
        prompt: the prompt that was chosen.
    """
    best = {name: max(scores.values()) for name, scores in entry.get("scores", {}).items()}
    config, method = context.config, context.method
    if len(best) == 2:
        gain = best[LEARNED] - best[HANDCRAFTED]
        why = f"the learned one has to gain {left_out.EARNED:g} points and gains {gain:.1f}"
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


@dataclass(frozen=True)
class _Reference:
    """Photos of a backbone's own, whose statistics stand in where a run's photos show nothing: those of the demo."""

    features: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.float64]
    scatter: npt.NDArray[np.float64]

    @classmethod
    def of(cls, backbone: Backbone) -> _Reference | None:
        """Return the reference of a backbone; None if it has none."""
        demo = load_features(DEMO_FILE)
        try:
            demo.require(backbone)
        except DataError:
            return None
        labels, names = demo.labels("train").numpy(), demo.dataset.class_names
        drawn = np.concatenate([np.flatnonzero(labels == c)[:_REFERENCE_SHOTS] for c in range(len(names))])
        features, drawn_labels = demo.plain("train", torch.from_numpy(drawn)).double().numpy(), labels[drawn]
        rows = backbone.embed_names(names, demo.dataset.template).double().cpu().numpy()
        scatter = gaussian(features, drawn_labels, len(rows)).scatter
        return None if scatter is None else cls(features, drawn_labels, rows, scatter)

    def statistics(self, scale: float) -> Statistics:
        """Return the statistics fitted to the reference itself."""
        choice = left_out.choose(self.features[:, None], self.labels, [Prompt(HANDCRAFTED, self.rows)], scale)
        return assemble(
            gaussian(self.features, self.labels, len(self.rows)),
            self.rows,
            alpha=choice.alpha,
            offsets=choice.offsets,
            separation=separation(self.features, self.labels, len(self.rows)),
        )
