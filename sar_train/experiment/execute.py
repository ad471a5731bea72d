"""Execute one run, from its settings to its result: train, evaluate, and add what an experiment records besides.

Every image of a target's test split is ranked against all of the target's classes. The learned prompt is used as it is,
with no template of the target's; zero-shot has the target's own template, as in the published tables. TCP's class-aware
tokens come from the *training* template here, where its reference implementation looks up that of the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sar_infer.storage.files import locked
from sar_train.clip import backbone as backbones
from sar_train.config.run import ELSEWHERE, RunConfig
from sar_train.data.task import Evaluated
from sar_train.errors import RunError
from sar_train.evaluation.accuracy import evaluate
from sar_train.experiment import code
from sar_train.experiment.job import Job
from sar_train.report.published import reference_zero_shot
from sar_train.training import checkpoint, trainer
from sar_train.training.checkpoint import Run
from sar_train.training.context import open_data
from sar_train.training.measures import image_features
from sar_train.training.prompted import PromptedCLIP, restore

MOST_NAMES = 128
"""Names kept at most; of more classes every n-th of base and of new."""
SCHEMA_VERSION = 1
WITHOUT_SIMILARITIES = ("custom", "few-shot")
"""Experiments of hundreds of files, for which no table of pairs is made."""
TOLERANCE = 0.2
"""Percentage points that rounding, resizing and arithmetic may cost."""


@torch.no_grad()
def similarities(prompted: PromptedCLIP, base: Sequence[str], new: Sequence[str]) -> dict[str, Any] | None:
    """Return ``names`` (base first), ``base`` (how many), and cosines by ``handcrafted`` and ``learned`` prompt.

    The cosines are multiplied by 1,000, upper triangle row by row. None where the prompts hold for the trained
    classes only, or where there are fewer than three names.
    """
    share = min(1.0, MOST_NAMES / max(1, len(base) + len(new)))
    thinned = [_thin(list(dict.fromkeys(names)), share) for names in (base, new)]
    names = [*thinned[0], *thinned[1]]
    if not prompted.method.transfers or len(names) < 3:
        return None
    handcrafted = prompted.backbone.embed_names(names, prompted.template)
    return {
        "names": names,
        "base": len(thinned[0]),
        "handcrafted": _triangle(handcrafted),
        "learned": _triangle(prompted.embed(names)),
    }


def _thin(names: Sequence[str], share: float) -> list[str]:
    count = int(len(names) * share)
    return [names[i * len(names) // count] for i in range(count)]


def _triangle(rows: Tensor) -> list[int]:
    upper = torch.triu_indices(len(rows), len(rows), 1)
    cosines = (rows @ rows.T)[upper[0], upper[1]]
    return [int(value) for value in (1000 * cosines).round().tolist()]


@torch.no_grad()
def evaluate_targets(prompted: PromptedCLIP, config: RunConfig, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return by target: ``accuracy`` and ``zero_shot`` (percent), ``classes``, ``photos``, ``template``, ``per_class``.

    Args:
        prompted: the learned prompt on its backbone.
        config: of its run; says where datasets lie.
        targets: datasets to evaluate on, named as for ``sar-train``.

    Raises:
        SarTrainError: a target cannot be opened, or an image cannot be read.
    """
    results = {}
    for target in targets:
        features = open_data(config, prompted.backbone, target=target)
        labels, names, template = features.labels("test"), features.dataset.class_names, features.dataset.template
        rows = torch.arange(len(labels))
        photos = Evaluated(names, features.plain("test", rows), labels, rows, "test")
        learned = evaluate(prompted.logits(image_features(prompted, features, photos), names), labels, names)
        handcrafted = prompted.backbone.embed_names(names, template)
        zero_shot = evaluate(photos.features.to(handcrafted.device) @ handcrafted.T, labels, names)
        results[target] = {
            "accuracy": learned.accuracy,
            "zero_shot": zero_shot.accuracy,
            "classes": len(names),
            "photos": len(labels),
            "template": template,
            "per_class": learned.per_class,
        }
    return results


def execute(job: Job, folder: Path) -> dict[str, Any]:
    """Train on one thread, or resume an unfinished run, evaluate, and return the result.

    Args:
        job: the run.
        folder: of its state until it is finished; a finished run stays in it.

    Raises:
        SarTrainError: settings, backbone, data or names cannot be used.
    """
    torch.set_num_threads(1)
    try:
        with locked(folder):
            finished = (folder / checkpoint.RECORD).is_file()
            run = checkpoint.load_run(folder) if finished else trainer.run(job.config, folder, for_tables=True)
    except BlockingIOError:
        raise RunError(f"{folder}: another sweep is at this run; wait for it, and run the command again") from None
    return result(job, run)


def result(job: Job, run: Run) -> dict[str, Any]:
    """Return the run's record and all that an experiment adds to it, as ``docs/files.md`` lists it."""
    config, record = job.config, dict(run.record)
    backbone = backbones.load(config.backbone, config.pretrained, device=config.device)
    prompted = restore(run, backbone)
    names = run.class_names, record["dataset"]["new_classes"]
    head = {
        "schema_version": SCHEMA_VERSION,
        "protocol": job.experiment,
        "name": job.name,
        "key": job.key(code.identity()["digest"]),
        "code": code.identity(),
        "photos": job.photos or None,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    tail = {
        "targets": evaluate_targets(prompted, config, job.targets) if job.targets else None,
        "similarities": None if job.experiment in WITHOUT_SIMILARITIES else similarities(prompted, *names),
        "zero_shot_check": check_zero_shot(config, record),
    }
    del record["schema_version"]
    record["config"] = {k: v for k, v in record["config"].items() if k not in ELSEWHERE}
    return head | record | tail


def check_zero_shot(config: RunConfig, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compare a run's zero-shot accuracies with the known ones.

    Args:
        config: the settings; with a template or base classes of the user's own, or with images left out, nothing is
            known.
        record: the run's, or anything with ``dataset`` and ``zero_shot`` as in it.

    Returns:
        ``expected`` and ``source``, the largest ``difference`` downwards in points (negative: too low), and ``ok``;
        None where nothing is known.
    """
    measured, dataset = record["zero_shot"], record["dataset"]
    if any((config.template, config.base_classes, config.allow_missing, config.skip_unreadable)):
        return None
    if measured["new_accuracy"] is None or dataset["judged_on"] != "test" or dataset["split_origin"] != "published":
        return None
    reference = reference_zero_shot(config.backbone, config.pretrained, dataset["name"])
    if reference is None:
        return None
    gap = round(min(measured["base_accuracy"] - reference.base, measured["new_accuracy"] - reference.new), 3)
    return {
        "expected": {"base_accuracy": reference.base, "new_accuracy": reference.new},
        "source": reference.source,
        "difference": gap,
        "ok": gap >= -TOLERANCE,
    }
