"""The measures of a run: accuracy, one ranking, confidence, a linear probe, and the relations that it keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from sar_infer.classify.calibration import Doubles, Fitted, HeldOut, calibrate
from sar_train.data.image_source import ImageDataSource
from sar_train.data.source import DataSource
from sar_train.evaluation.accuracy import EvaluationSplit, Evaluator
from sar_train.evaluation.linear_probe import linear_probe
from sar_train.evaluation.open_protocol import open_protocol
from sar_train.evaluation.relations import held_out_names, spearman_of_relations
from sar_train.training.context import RunContext
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.record import MEAN_IMAGE, TEXT_BRANCH, Answers

Logits = Callable[[Tensor, Sequence[str]], Tensor]
"""(N, C) for (N, D) unit image features and C names."""
EvaluatedBranch = Literal["text", "head", "statistics"]
_ENOUGH_HELD = 100
"""Validation images that confidence is fitted on alone; a user's folder often has a handful."""
FeaturesOf = Callable[[EvaluationSplit], Tensor]
"""(N, D) unit features of evaluated images."""


def probe_accuracy(context: RunContext) -> float | None:
    """Return the base accuracy in percent of a linear probe on the same shots; None where nothing is evaluated."""
    base_images = context.evaluator.base
    if base_images is None:
        return None
    config, source, base = context.config, context.source, context.plan.base
    labels = source.labels("val").tolist()
    drawn = source.draw(config.shots, config.seed).val
    rows = [row for row in drawn if labels[row] in base]
    val = source.plain("val", rows), torch.tensor([base.index(labels[row]) for row in rows], dtype=torch.long)
    shots = context.task.features, context.task.labels
    return linear_probe(*shots, base_images.features, base_images.labels, val=val, seed=config.seed)


def image_features(prompted: PromptedCLIP, source: DataSource, part: EvaluationSplit) -> Tensor:
    """Return (N, D) unit features of evaluated images, under image prompts where the method has them."""
    if "image" not in prompted.method.towers or not isinstance(source, ImageDataSource):
        return part.features
    return source.map_pixels(part.split, part.rows, prompted.encode_images)


def evaluate_all(evaluator: Evaluator, images: FeaturesOf, logits: Logits) -> Answers:
    """Evaluate base and new images among the classes of their own side, and all of them in one ranking.

    The ranking has the logits that the base names get when they are asked for alone, and beside them those of the new
    names. So a head answers for the classes that it knows and the text branch for the others; that no bundle does: one
    that is asked for both at once leaves the head out, as ``text-branch`` does. Without a head it makes no difference.

    Args:
        evaluator: the images.
        images: returns (N, D) unit features of a side.
        logits: returns (N, C) for such features and C names.
    """
    base, new = evaluator.base, evaluator.new
    if base is None or new is None:
        return Answers(evaluator(lambda part: logits(images(part), part.names)), None)
    rows, count = torch.cat([images(base), images(new)]), len(base.labels)
    known, others = (logits(rows, part.names).cpu() for part in (base, new))
    parts = evaluator(lambda part: known[:count] if part is base else others[count:])
    labels = torch.cat([base.labels, new.labels + len(base.names)])
    return Answers(parts, open_protocol(torch.cat([known, others], dim=1), labels, len(base.names)))


def zero_shot(context: RunContext) -> Answers:
    """Evaluate the hand-crafted prompt."""
    return evaluate_all(context.evaluator, lambda part: part.features, context.zero_shot)


def answers(context: RunContext, prompted: PromptedCLIP, images: FeaturesOf) -> tuple[Answers, dict[str, Answers]]:
    """Evaluate the method's own answers, and those in the other ways that a bundle may need."""

    def evaluated(**way: bool) -> Answers:
        return evaluate_all(context.evaluator, images, lambda rows, names: prompted.logits(rows, names, **way))

    others: dict[str, Answers] = {}
    if prompted.method.head() is not None:
        others[TEXT_BRANCH] = evaluated(text_only=True)
    if prompted.method.per_image:
        others[MEAN_IMAGE] = evaluated(frozen=True)
    return evaluated(), others


def confidence(
    context: RunContext,
    prompted: PromptedCLIP,
    images: FeaturesOf,
    composed: Logits | None = None,
    *,
    headless: bool = False,
) -> Fitted | None:
    """Fit and measure the confidence of a bundle's answers for the base classes; None where images do not suffice.

    Fitted on validation images of the base classes and measured on the evaluated ones. Of few validation images and the
    evaluated ones together each tenth is measured by the rest. New classes' images are the unknown ones. A prompt that
    depends on the image is that for the mean image, since a bundle has no other.

    Args:
        context: of the run.
        prompted: the trained prompt.
        images: returns the features of evaluated images.
        composed: returns the logits with class statistics, which a bundle answers by unless it has a head.
        headless: the bundle has the hand-crafted prompt, and so no head.
    """
    base, new, held = context.evaluator.base, context.evaluator.new, context.held
    if base is None:
        return None
    head = None if headless else prompted.method.head()
    bias = context.backbone.logit_bias or 0.0
    shift = bias if head is None else bias * (1 - head.mix)
    branch: EvaluatedBranch = "head" if head is not None else "text" if composed is None else "statistics"

    def logits(part: EvaluationSplit) -> Doubles:
        if branch == "statistics" and composed is not None:
            found = composed(images(part), base.names)
        else:
            found = prompted.logits(images(part), base.names, frozen=True)
        return (found + shift).double().cpu().numpy()

    def held_out_images(part: EvaluationSplit) -> HeldOut:
        return HeldOut(logits(part), part.labels.numpy())

    unknown = None if new is None else logits(new)
    tested = held_out_images(base)
    if held is None:
        found = calibrate(context.source.name, tested, unknown=unknown)
    elif len(held.labels) < _ENOUGH_HELD:
        found = calibrate(context.source.name, tested.with_more(held_out_images(held)), unknown=unknown)
    else:
        found = calibrate(context.source.name, held_out_images(held), tested, unknown)
    return found and dataclasses.replace(found, branch=branch)


def held_out(context: RunContext) -> tuple[str, ...]:
    """Return names that take no part in the run."""
    novel = context.novel.names if context.novel else ()
    new = context.evaluator.new.names if context.evaluator.new else ()
    return held_out_names([*context.task.class_names, *novel], new)


def relations(context: RunContext, prompted: PromptedCLIP, names: Sequence[str]) -> float | None:
    """Return SAR's own measure on some names; None where prompts hold for the trained classes alone."""
    if not prompted.method.transfers:
        return None
    return spearman_of_relations(prompted.embed(names), context.handcrafted(names))
