"""A learned prompt on other datasets: cross-dataset evaluation and domain generalisation.

Every photo of a target's test split is judged against all of the target's classes. The learned prompt is used as it is,
with no template of the target's; zero-shot has the target's own template, as in the published tables. TCP's class-aware
tokens come from the *training* template here, where its reference implementation looks up that of the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sar_train.config.run import RunConfig
from sar_train.evaluation.accuracy import EvaluationSplit, evaluate
from sar_train.training.context import open_target
from sar_train.training.measures import image_features
from sar_train.training.prompted import PromptedCLIP


@torch.no_grad()
def evaluate_targets(prompted: PromptedCLIP, config: RunConfig, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By target: ``accuracy`` and ``zero_shot`` in percent, ``classes``, ``photos``, ``template``, ``per_class``.

    Args:
        prompted: the learned prompt on its backbone.
        config: of its run; says where datasets lie.
        targets: what to judge on, as ``sar-train`` names datasets.

    Raises:
        SarTrainError: a target cannot be opened, or a photo cannot be read.
    """
    found = {}
    for target in targets:
        source = open_target(config, target, prompted.backbone)
        labels, names = source.labels("test"), list(source.class_names)
        rows = torch.arange(len(labels))
        part = EvaluationSplit(names, source.plain("test", rows), labels, rows)
        learned = evaluate(prompted.logits(image_features(prompted, source, "test", part), names), labels, names)
        handcrafted = prompted.backbone.embed_names(names, prompted.backbone.handcrafted(source.template))
        zero_shot = evaluate(part.features.to(handcrafted.device) @ handcrafted.T, labels, names)
        found[target] = {
            "accuracy": learned.accuracy,
            "zero_shot": zero_shot.accuracy,
            "classes": len(names),
            "photos": len(labels),
            "template": source.template,
            "per_class": learned.per_class,
        }
    return found
