"""A preview of a run: data, classes, names, settings, and how long it may take."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sar_infer.evaluation.findings import Finding, duplicates
from sar_infer.evaluation.labels import LabelCheck
from sar_train.config.run import RunConfig
from sar_train.data.dataset import DEMO, SPLITS
from sar_train.data.features import Features, PhotoFeatures
from sar_train.data.opening import locate
from sar_train.data.photos import check_dataset, unreadable
from sar_train.data.progress import ProgressCallback
from sar_train.data.readers.base import reader_of
from sar_train.data.task import Task, random_crops
from sar_train.errors import DataError
from sar_train.training.context import Outline, RunContext, outline
from sar_train.training.fitting import trainings
from sar_train.training.labels import check
from sar_train.training.prompted import PromptedCLIP

_ENCODED = 16
"""Photos that are encoded to see how long one takes, after as many that warm up."""
_STEPS = 3
MOST_CHECKED = 2000
"""Photos whose labels are checked, as they have to be encoded."""


@dataclass(frozen=True)
class Preview:
    """Preview of a run.

    Attributes:
        data: what the user named.
        layout: how the photos lie, in words.
        split: where the splits come from: ``published``, ``given`` or ``ours``.
        protocol: ``all`` or ``base-to-new``.
        tested_on: the split that accuracies are measured on.
        classes: ``name``, photos in ``train``, ``val`` and ``test``, ``learned`` (how many are learned from) and
            ``new`` of every class.
        checked: how many photos were ``decoded``, and ``findings`` about them; None where there are only features.
        label_check: photos that may lie in the wrong folder; None where more than `MOST_CHECKED` are learned from.
        names: remarks on class names.
        method: the method, with its regulariser.
        settings: of both, by name.
        backbone: the frozen CLIP.
        template: the hand-crafted prompt.
        prompt: what the class model takes: ``auto``, ``learned`` or ``handcrafted``; None without one.
        novel: source, count and first novel names; None without a regulariser.
        schedule: epochs, batch size and learning rate.
        expected: an estimate of the seconds from photos and steps that were tried: ``encoding`` (None where there are
            only features), ``halves`` (training on each half of the classes), ``training`` (on all), ``evaluating``
            (test photos under prompts that need them anew), ``certain`` (False if training on all is done only where
            the learned prompt is better) and ``seconds``, of all that is certain; ``photos`` is how many views are
            encoded, ``steps`` how many steps are made on all classes.
    """

    data: str
    layout: str
    split: str
    protocol: str
    tested_on: str
    classes: tuple[dict[str, Any], ...]
    checked: dict[str, Any] | None
    label_check: LabelCheck | None
    names: tuple[Finding, ...]
    method: str
    settings: dict[str, Any]
    backbone: str
    template: str
    prompt: str | None
    novel: dict[str, Any] | None
    schedule: dict[str, Any]
    expected: dict[str, Any]


def preview(config: RunConfig, tell: ProgressCallback = lambda text: None) -> Preview:
    """Look at what a run would do; a few photos are encoded and a few steps made, and nothing is written.

    Args:
        config: the settings.
        tell: gets progress as short lines.

    Raises:
        SarTrainError: settings, backbone or data cannot be used.
    """
    run = outline(dataclasses.replace(config, cache_dir=None))
    dataset, plan = run.features.dataset, run.plan
    learned = Counter(dataset.photos("train")[row].label for row in run.learned_rows)
    counts = {split: Counter(photo.label for photo in dataset.photos(split)) for split in SPLITS}
    classes = tuple(
        {
            "name": dataset.class_names[label],
            **{split: counts[split][label] for split in SPLITS},
            "learned": learned[label],
            "new": label in plan.new,
        }
        for label in sorted((*plan.base, *plan.new))
    )
    checked, copies = None, list[tuple[Path, Path]]()
    if isinstance(run.features, PhotoFeatures):
        decoded, findings, copies = check_dataset(dataset)
        checked = {"decoded": decoded, "findings": findings}
    names = tuple(duplicates([one["name"] for one in classes], {}))
    label_check = None
    if len(run.learned_rows) <= MOST_CHECKED:
        rows = _sound(run.features, run.learned_rows, MOST_CHECKED)
        label_check = check(run, rows, run.features.plain("train", rows), [(str(one), str(two)) for one, two in copies])
    tell("trying a few photos and steps")
    novel, expected = try_out(run)
    return Preview(
        config.data,
        _layout(config, run),
        dataset.split_origin,
        plan.protocol,
        plan.split,
        classes,
        checked,
        label_check,
        names,
        " + ".join([config.method, *[name for name in run.settings if name != config.method]]),
        run.settings,
        run.backbone.name,
        run.template,
        config.prompt if config.statistics else None,
        novel,
        {name: getattr(run.schedule, name) for name in ("epochs", "batch_size", "learning_rate")},
        expected,
    )


def _layout(config: RunConfig, run: Outline) -> str:
    if not isinstance(run.features, PhotoFeatures):
        return "features that ship with this package" if config.data == DEMO else "a feature file"
    path, key = locate(config.data, Path(config.data_root) if config.data_root else None)
    if key:
        return f"{key}, in CoOp's layout"
    reader, dataset = reader_of(path), run.features.dataset
    if reader is None:
        return ""
    in_splits = reader.last and len(dataset.splits) > 1 and dataset.split_origin == "given"
    return f"{reader.words}, in folders of splits" if in_splits else reader.words


def try_out(
    run: Outline, *, per_photo: float | None = None, for_tables: bool = False
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the novel names, and the time that a run may take, from a few photos and steps.

    Args:
        run: the run.
        per_photo: seconds to encode a photo, where they have been measured.
        for_tables: as `trainings`.
    """
    config, dataset, features, schedule = run.config, run.features.dataset, run.features, run.schedule
    rows = run.learned_rows
    evaluated = frozenset((*run.plan.base, *run.plan.new))
    tested = sum(photo.label in evaluated for photo in dataset.photos(run.plan.split))
    sound = _sound(features, rows, max(2 * _ENCODED, schedule.batch_size))
    half = min(_ENCODED, len(sound) // 2)
    if per_photo is None and isinstance(features, PhotoFeatures) and half:
        features.plain("train", sound[:half])  # which warms up
        per_photo = _seconds(lambda: features.plain("train", sound[half : 2 * half])) / half
    views = 1 if run.image_prompts else config.views
    photos = len(rows) * views + tested if per_photo is not None else 0
    names = run.names(run.plan.base)
    handcrafted = run.backbone.embed_names(names, run.teacher)
    begun = time.perf_counter()
    novel = None if run.novel_source is None or run.novel_source.form == "llm" else run.novel_names(handcrafted)
    # Random features take as long as real ones.
    size, generator = min(schedule.batch_size, len(sound)), torch.Generator().manual_seed(0)
    random = torch.nn.functional.normalize(torch.randn(size, 1, run.backbone.embed_dim, generator=generator), dim=-1)
    crops = random_crops(features, sound[:size], config) if run.image_prompts else None
    context = RunContext.of(run, Task(random, torch.arange(size) % len(names), names, handcrafted, crops), novel)
    training, steps = 0.0, schedule.epochs * max(1, len(rows) // schedule.batch_size)
    if run.method.trains:
        step, batch = context.step(context.start()), torch.arange(size)
        training = time.perf_counter() - begun
        step(batch, 0.5)  # the first one is slower
        training += steps * statistics.median(_seconds(lambda: step(batch, 0.5)) for _ in range(_STEPS))
    evaluating = tested * (per_photo or 0.0) if run.image_prompts else 0.0  # again, under the prompts
    if run.method.per_image:  # among the classes of either side
        prompted = PromptedCLIP(run.backbone, run.method, run.teacher, names)
        evaluating += 2 * tested * _seconds(lambda: prompted.logits(random[:, 0], names).cpu()) / size
    labels = features.labels("train")[list(rows)].tolist()
    needed = trainings(run, np.array([run.plan.base.index(label) for label in labels]), for_tables=for_tables)
    encoding = None if per_photo is None else per_photo * photos
    halves, whole = training * needed.halves, training * (needed.whole != "never")
    certain = needed.whole != "if better"
    expected = {
        "encoding": encoding,
        "halves": halves,
        "training": whole,
        "evaluating": evaluating,
        "certain": certain,
        "photos": photos,
        "steps": steps if whole else 0,
        "seconds": (encoding or 0.0) + halves + evaluating + whole * certain,
    }
    described = None
    if run.novel_source is not None:
        some = () if novel is None else novel.names[:5]
        described = {"source": config.novel, "count": None if novel is None else len(novel.names), "first": list(some)}
    return described, expected


def _sound(features: Features, rows: Sequence[int], most: int) -> Sequence[int]:
    """Return some of the training photos, at even steps, without those that cannot be read."""
    chosen = [rows[at * len(rows) // most] for at in range(most)] if len(rows) > most else rows
    if not isinstance(features, PhotoFeatures):
        return chosen
    photos = features.dataset.photos("train")
    paths = {row: str(features.dataset.root / photos[row].path) for row in chosen}
    bad = unreadable([*paths.values()])
    if len(bad) == len({*paths.values()}):
        path, reason = next(iter(bad.items()))
        raise DataError(f"none of the photos to learn from can be read: {path}: {reason}")
    return [row for row in chosen if paths[row] not in bad]


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
