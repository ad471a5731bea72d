"""The measures of a run: accuracy, joint accuracy, a linear probe, and the relations that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sar_train.data.features import Features, PhotoFeatures
from sar_train.data.task import Evaluated, Task
from sar_train.evaluation.accuracy import evaluate
from sar_train.evaluation.linear_probe import linear_probe
from sar_train.evaluation.open_protocol import open_protocol
from sar_train.evaluation.relations import held_out_names, spearman_of_relations
from sar_train.training.context import RunContext
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.record import MEAN_IMAGE, SWITCHED, TEXT_BRANCH, Answers, Parts

Logits = Callable[[Tensor, Sequence[str]], Tensor]
"""(N, C) for (N, D) unit image features and C names."""
FeaturesOf = Callable[[Evaluated], Tensor]
"""(N, D) unit features of evaluated images."""


def probe_accuracy(context: RunContext) -> float | None:
    """Return the base accuracy in percent of a linear probe on the same shots; None where nothing is evaluated."""
    task, config, features, base = context.task, context.config, context.features, context.plan.base
    if task.base is None:
        return None
    labels = features.labels("val").tolist()
    rows = [row for row in features.draw(config.shots, config.seed).val if labels[row] in base]
    val = features.plain("val", rows), torch.tensor([base.index(labels[row]) for row in rows], dtype=torch.long)
    return linear_probe(task.features, task.labels, task.base.features, task.base.labels, val=val, seed=config.seed)


def image_features(prompted: PromptedCLIP | None, features: Features, evaluated: Evaluated) -> Tensor:
    """Return (N, D) unit features of evaluated photos, under image prompts where the method has them."""
    if prompted is None or "image" not in prompted.method.towers or not isinstance(features, PhotoFeatures):
        return evaluated.features
    return features.map_pixels(evaluated.split, evaluated.rows, prompted.encode_images)


def evaluate_all(task: Task, images: FeaturesOf, logits: Logits) -> Answers:
    """Evaluate base and new photos among the classes of their own side, and all of them together.

    The joint ranking has the logits of the base names as computed without new names, and those of the new
    names. So a head answers for the classes that it knows and the text branch for the others, which no bundle does: an
    exported head is left out, as in ``text-branch``. Without a head it makes no difference.

    Args:
        task: has the photos of both sides.
        images: returns (N, D) unit features of a side.
        logits: returns (N, C) for such features and C names.
    """
    base, new = task.base, task.new
    if base is None or new is None:
        sides = {"base": base, "new": new}
        return Answers(
            {
                name: None
                if side is None
                else evaluate(logits(images(side), side.class_names), side.labels, side.class_names)
                for name, side in sides.items()
            },
            None,
        )
    rows, count = torch.cat([images(base), images(new)]), len(base.labels)
    of_base, of_new = (logits(rows, side.class_names).cpu() for side in (base, new))
    apart: Parts = {
        "base": evaluate(of_base[:count], base.labels, base.class_names),
        "new": evaluate(of_new[count:], new.labels, new.class_names),
    }
    labels = torch.cat([base.labels, new.labels + len(base.class_names)])
    return Answers(apart, open_protocol(torch.cat([of_base, of_new], dim=1), labels, len(base.class_names)))


def zero_shot(context: RunContext) -> Answers:
    """Evaluate the hand-crafted prompt."""
    return evaluate_all(context.task, lambda evaluated: evaluated.features, context.zero_shot)


def answers(context: RunContext, prompted: PromptedCLIP, images: FeaturesOf) -> tuple[Answers, dict[str, Answers]]:
    """Evaluate the method's own answers, and those in the other ways that a bundle may need."""
    own: dict[tuple[str, ...], Tensor] = {}  # a prompt that depends on the image takes minutes

    def evaluated(**way: bool) -> Answers:
        return evaluate_all(context.task, images, lambda rows, names: prompted.logits(rows, names, **way))

    def logits(rows: Tensor, names: Sequence[str]) -> Tensor:
        own[tuple(names)] = prompted.logits(rows, names)
        return own[tuple(names)]

    def switched(rows: Tensor, names: Sequence[str]) -> Tensor:
        trained = tuple(names) == tuple(context.task.class_names)
        return own[tuple(names)] if trained else context.zero_shot(rows, names)

    result, others = evaluate_all(context.task, images, logits), dict[str, Answers]()
    if context.task.base is not None and context.task.new is not None:
        others[SWITCHED] = evaluate_all(context.task, images, switched)
    if prompted.method.head() is not None:
        others[TEXT_BRANCH] = evaluated(text_only=True)
    if prompted.method.per_image:
        others[MEAN_IMAGE] = evaluated(frozen=True)
    return result, others


def bundle_logits(
    context: RunContext, prompted: PromptedCLIP | None, images: FeaturesOf
) -> Callable[[Evaluated], Tensor]:
    """Return a function from evaluated photos to logits (N, C) of the trained classes, without a class model.

    So a bundle answers: by text only, without a head; a prompt that depends on the image is that for the mean image.
    """
    names = context.task.class_names
    if prompted is None:
        return lambda evaluated: context.zero_shot(evaluated.features, names)
    return lambda evaluated: prompted.logits(images(evaluated), names, text_only=True, frozen=True)


def held_out(context: RunContext) -> tuple[str, ...]:
    """Return names that take no part in the run."""
    novel = context.novel.names if context.novel else ()
    new = context.task.new.class_names if context.task.new else ()
    return held_out_names([*context.task.class_names, *novel], new)


def relations(context: RunContext, prompted: PromptedCLIP, names: Sequence[str]) -> float | None:
    """Return SAR's own measure on some names; None where prompts exist only for trained classes."""
    if not prompted.method.transfers:
        return None
    return spearman_of_relations(prompted.embed(names), context.handcrafted(names))
