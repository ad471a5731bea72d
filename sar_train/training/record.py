"""``record.json``: the settings of a run and its results."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sar_train.evaluation.accuracy import Evaluation, harmonic_mean
from sar_train.evaluation.open_protocol import OpenProtocol
from sar_train.training.versions import versions

if TYPE_CHECKING:
    from sar_train.training.context import RunContext

Parts = dict[str, Evaluation | None]
"""Evaluations of base and new classes."""
TEXT_BRANCH, MEAN_IMAGE, CLASS_MODEL = "text-branch", "mean-image", "statistics"
SWITCHED, CLASS_MODEL_SWITCHED, CLASS_MODEL_HANDCRAFTED = "switched", "statistics-switched", "statistics-handcrafted"
WAYS = {
    TEXT_BRANCH: "text branch",
    MEAN_IMAGE: "mean image",
    CLASS_MODEL: "class model",
    SWITCHED: "switched",
    CLASS_MODEL_SWITCHED: "class model, switched",
    CLASS_MODEL_HANDCRAFTED: "class model, hand-crafted prompt",
}
"""Ways to answer other than the run's own, and their labels: without the head, by the prompt for the mean image, by the
class model, and switched: trained classes by the learned prompt, all others by the hand-crafted one."""


@dataclass(frozen=True)
class Answers:
    """The evaluation of one way to answer.

    Attributes:
        parts: base and new classes, each among their own.
        open: both together; None where the protocol has no new classes.
    """

    parts: Parts
    open: OpenProtocol | None


def scores(parts: dict[str, Evaluation | None]) -> dict[str, float | None]:
    """Return base and new accuracy and their harmonic mean in percent; None where the protocol has none."""
    base = parts["base"].accuracy if parts["base"] else None
    new = parts["new"].accuracy if parts["new"] else None
    return {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": harmonic_mean(base, new)}


def in_words(separate: Mapping[str, Any], jointly: Mapping[str, Any] | None = None) -> str:
    """Return ``base 60.7 % / new 59.1 % (harmonic mean 59.9 %)`` and the same jointly, as far as measured."""
    if separate["base_accuracy"] is None:
        return "not measured, no photo is left to test on"
    if separate["new_accuracy"] is None:
        return f"accuracy {separate['base_accuracy']:.1f} %"
    text = "base {base_accuracy:.1f} % / new {new_accuracy:.1f} % (harmonic mean {harmonic_mean:.1f} %)"
    return "; joint over base and new: ".join(text.format_map(one) for one in (separate, jointly) if one)


def peak_memory_mib() -> float | None:
    """Return the largest resident size of this process, None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


def dataset_entry(context: RunContext) -> dict[str, Any]:
    """Describe what a run learned from and was evaluated on."""
    task, dataset = context.task, context.features.dataset
    return {
        "name": dataset.name,
        "classes": list(task.class_names),
        "photos": len(task.labels),
        "held_out": len(task.base.labels) if task.base else 0,
        "judged_on": context.plan.split,
        "new_classes": [dataset.class_names[label] for label in context.plan.new],
        "split_origin": dataset.split_origin,
    }


def make_record(
    context: RunContext, result: Answers, others: dict[str, Answers], zero_shot: Answers, **entries: Any
) -> dict[str, Any]:
    """Return the record as plain JSON values; keys are listed in ``docs/files.md``.

    Args:
        context: of the run.
        result: what the method answers.
        others: the same by the ways that a bundle may have to answer in: ``text-branch`` without the head,
            ``mean-image`` with the prompt for the mean training image, and so on (`WAYS`).
        zero_shot: what the hand-crafted prompt answers.
        **entries: further keys of the record, as they are.
    """
    config, novel, parts = context.config, context.novel, result.parts

    def each(parts: Parts, name: str) -> dict[str, Any]:
        return {side: getattr(evaluation, name) if evaluation else None for side, evaluation in parts.items()}

    in_one = {
        name: dataclasses.asdict(answers.open)
        for name, answers in ({"metrics": result, "zero_shot": zero_shot} | others).items()
        if answers.open
    }
    return {
        "schema_version": 1,
        "config": {k: v for k, v in dataclasses.asdict(config).items() if k != "llm_url"}
        | {
            "template": context.template,
            "teacher": context.teacher,
            "protocol": context.plan.protocol,
            "schedule": vars(context.schedule),
        },
        "settings": context.settings,
        "seed": config.seed,
        "backbone": {"name": config.backbone, "weights_digest": context.backbone.weights_digest},
        "dataset": dataset_entry(context),
        "metrics": scores(parts),
        "other_metrics": {name: scores(answers.parts) for name, answers in others.items()},
        "zero_shot": scores(zero_shot.parts),
        "open": {name: in_one[name] for name in ("metrics", "zero_shot")}
        | {"other_metrics": {name: in_one[name] for name in others if name in in_one}}
        if in_one
        else None,
        "novel": novel.summary if novel else None,
        "per_class": each(parts, "per_class"),
        "per_class_counts": each(parts, "counts"),
        "confused": each(parts, "confused"),
        "other_confused": {name: each(answers.parts, "confused") for name, answers in others.items()},
        **entries,
        "peak_memory_mib": peak_memory_mib(),
        "versions": versions(),
    }
