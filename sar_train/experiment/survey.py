"""Check before training that the data are there and that zero-shot is as it should be; fill the feature cache too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_train.clip.backbone import Backbone
from sar_train.config.run import RunConfig
from sar_train.data.opening import missing
from sar_train.data.progress import ProgressCallback
from sar_train.errors import DataError
from sar_train.experiment.job import Job
from sar_train.report.published import reference_zero_shot
from sar_train.training import measures
from sar_train.training.context import RunContext, open_data, open_names, prepare
from sar_train.training.record import dataset_entry, scores

TOLERANCE = 0.2
"""Percentage points that rounding, resizing and arithmetic may cost."""


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
    if (
        config.template
        or config.base_classes
        or config.allow_missing
        or config.skip_unreadable
        or measured["new_accuracy"] is None
    ):
        return None
    if dataset["judged_on"] != "test" or dataset["split_origin"] != "published":
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


def look_for_data(jobs: Sequence[Job], warn: ProgressCallback | None = None) -> None:
    """Make sure that every dataset and target is there, before anything is loaded or encoded; no image is read.

    Args:
        jobs: the runs to come.
        warn: gets a line for each that is missing, in place of an error; an unknown name stays an error.

    Raises:
        DataError: datasets that cannot be found, all of them in one line, unknown names first.
    """
    datasets = dict.fromkeys((name, job.config.data_root) for job in jobs for name in (job.config.data, *job.targets))
    unknown: dict[str, str] = {}
    absent: dict[str, str] = {}
    for name, root in datasets:
        try:
            if message := missing(name, Path(root) if root else None):
                absent[name] = message
        except DataError as error:
            unknown[name] = str(error)
    if warn:
        for message in absent.values():
            warn(f"Warning: {message}")
        absent = {}
    if problems := unknown | absent:
        first = next(iter(problems.values()))
        summary = f"{len(problems)} datasets cannot be found: {', '.join(problems)}; the first: "
        raise DataError(summary * (len(problems) > 1) + first)


def survey(jobs: Sequence[Job], tell: ProgressCallback, *, strict: bool = True) -> list[dict[str, Any]]:
    """Open every dataset once for each seed and number of shots, open the targets, and measure zero-shot.

    Args:
        jobs: the runs to come.
        tell: gets a line for each dataset and target.
        strict: raise if zero-shot misses a known figure.

    Returns:
        One entry a dataset, backbone, protocol and template: ``dataset``, ``zero_shot``, ``zero_shot_check``.

    Raises:
        DataError: zero-shot is more than 0.2 points below a known figure, or there are no images to evaluate on.
        SarTrainError: a dataset or target cannot be opened.
    """
    entries: dict[tuple[object, ...], dict[str, Any]] = {}
    opened: set[tuple[object, ...]] = set()
    backbone: Backbone | None = None
    tell_once = _once(tell)
    for job in jobs:
        if job.config.sar:
            open_names(job.config)
    for job in jobs:
        plain = dataclasses.replace(job.config, method="coop", sar=False, sections={})
        world = (plain.data, plain.protocol, plain.base_classes, plain.template, plain.backbone, plain.pretrained)
        draw = (*world, plain.seed, plain.shots)
        if draw not in opened:
            tell(f"{plain.data}, seed {plain.seed}, {plain.shots or 'all'} shots: opening, encoding what is not cached")
            context = prepare(plain, tell_once)
            backbone = context.backbone
            if world not in entries:
                entries[world] = _measured(context, tell, strict=strict)
        for target in job.targets:
            if (*world, target) not in opened and backbone is not None:
                features = open_data(plain, backbone, tell, target=target)
                dataset = features.dataset
                tell(f"target {target}: {len(dataset.class_names)} classes, {len(dataset.photos('test'))} photos")
                features.plain("test")  # into the cache, once for all runs
                opened.add((*world, target))
        if job.config.sar and job.config.novel == "llm" and (*draw, "llm") not in opened:
            prepare(job.config, tell_once)  # asks the model once; all runs find the answer in the cache
            opened.add((*draw, "llm"))
        opened.add(draw)
    return list(entries.values())


def _measured(context: RunContext, tell: ProgressCallback, *, strict: bool) -> dict[str, Any]:
    config = context.config
    if context.task.base is None:
        raise DataError(
            f"{config.data}: nothing to evaluate on, {context.plan.protocol} needs photos of {context.plan.split}"
        )
    zero_shot = scores(measures.zero_shot(context).parts)
    entry = {"dataset": dataset_entry(context), "zero_shot": zero_shot}
    check = check_zero_shot(config, entry) or _check_on_halves(context)
    tell(f"zero-shot on {config.data}: {_percent(zero_shot)}{_verdict(check)}")
    if check and not check["ok"] and strict:
        raise DataError(
            f"set-up error: zero-shot on {config.data} is {-check['difference']:.2f} points below the known "
            f"{_percent(check['expected'])} ({check['source']}; up to {TOLERANCE} are allowed): class names, "
            "template, photos or weights differ from those; look at them with sar-train --plan, or go on "
            "anyway with --allow-setup-errors"
        )
    return entry | {"zero_shot_check": check}


def _check_on_halves(context: RunContext) -> dict[str, Any] | None:
    """Check a protocol of all classes on base and new classes, of which the known figures are."""
    config, name = context.config, context.features.dataset.name
    if context.plan.protocol != "all" or not reference_zero_shot(config.backbone, config.pretrained, name):
        return None
    halves = prepare(dataclasses.replace(config, protocol="base-to-new"))
    entry = {"dataset": dataset_entry(halves), "zero_shot": scores(measures.zero_shot(halves).parts)}
    return check_zero_shot(halves.config, entry)


def _once(tell: ProgressCallback) -> ProgressCallback:
    """Return a callback that skips repeated lines: warnings are the same for every seed."""
    lines: set[str] = set()

    def tell_once(text: str) -> None:
        if text not in lines:
            lines.add(text)
            tell(text)

    return tell_once


def _percent(values: dict[str, Any]) -> str:
    base, new = values["base_accuracy"], values["new_accuracy"]
    return f"{base:.2f} / {new:.2f}" if new is not None else f"{base:.2f}"


def _verdict(check: dict[str, Any] | None) -> str:
    if check is None:
        return ""
    return f" (known: {_percent(check['expected'])}, {'as it should be' if check['ok'] else 'TOO LOW'})"
