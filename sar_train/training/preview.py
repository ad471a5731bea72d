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

import torch
from torch import Tensor

from sar_infer.evaluation import Finding, duplicates
from sar_train.config.run import RunConfig
from sar_train.data.check import Checked, Watch, check_dataset, unwatched
from sar_train.data.dataset import DEMO, SPLITS
from sar_train.data.features import Features, PhotoFeatures
from sar_train.data.opening import locate
from sar_train.data.photos import unreadable
from sar_train.data.progress import ProgressCallback
from sar_train.data.readers.base import reader_of, readers
from sar_train.data.task import MOST_VALIDATION, Task, random_crops
from sar_train.errors import DataError
from sar_train.training import loop
from sar_train.training.context import Outline, RunContext, outline
from sar_train.training.fitting import trains_again

_ENCODED = 16
"""Photos that are encoded to see how long one takes, after as many that warm up."""
_STEPS = 3
_LAYOUTS = {
    "folder": "a folder for each class",
    "hugging-face": "saved by Hugging Face's datasets",
    "list": "a list of paths and classes",
    "metadata": "photos with a list beside them",
}


@dataclass(frozen=True)
class ClassPreview:
    """One class: how many photos it has in each split, and how many of them are learned from (0 for a new class)."""

    name: str
    train: int
    val: int
    test: int
    learned: int
    new: bool


@dataclass(frozen=True)
class Expected:
    """Seconds that a run may take, from photos and steps that were tried; None for what cannot be tried.

    Attributes:
        encoding: of all photos that are learned from and evaluated; what another run has encoded is not again.
        training: of all steps.
        statistics: of training the prompt again for class statistics; fitting them and evaluating come on top.
        photos: how many views are encoded.
        steps: how many steps are made.
    """

    encoding: float | None
    training: float
    statistics: float
    photos: int
    steps: int

    @property
    def seconds(self) -> float:
        """Return their sum."""
        return (self.encoding or 0) + self.training + self.statistics


@dataclass(frozen=True)
class Preview:
    """Preview of a run.

    Attributes:
        data: what the user named.
        layout: how the photos lie, in words.
        split: where the splits come from: ``published``, ``given`` or ``ours``.
        protocol: ``all`` or ``base-to-new``.
        tested_on: the split that accuracies are measured on.
        classes: every class.
        checked: what a look at the photos found; None where there are only features.
        names: remarks on class names.
        method: the method, with its regulariser.
        settings: of both, by name.
        backbone: the frozen CLIP.
        template: the hand-crafted prompt.
        prompt: what class statistics take: ``auto``, ``learned`` or ``handcrafted``; None without statistics.
        novel: source, count and first novel names; None without a regulariser.
        schedule: epochs, batch size and learning rate.
        expected: the time that it may take.
    """

    data: str
    layout: str
    split: str
    protocol: str
    tested_on: str
    classes: tuple[ClassPreview, ...]
    checked: Checked | None
    names: tuple[Finding, ...]
    method: str
    settings: dict[str, Any]
    backbone: str
    template: str
    prompt: str | None
    novel: dict[str, Any] | None
    schedule: dict[str, Any]
    expected: Expected

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        checked = self.checked
        content = dataclasses.asdict(dataclasses.replace(self, checked=None))
        content["checked"] = checked and {
            "decoded": checked.decoded,
            "findings": [finding.to_json() for finding in checked.findings],
        }
        return content | {"expected": content["expected"] | {"seconds": self.expected.seconds}}


def preview(config: RunConfig, tell: ProgressCallback = lambda text: None, watch: Watch = unwatched) -> Preview:
    """Look at what a run would do; a few photos are encoded and a few steps made, and nothing is written.

    Args:
        config: the settings.
        tell: gets progress as short lines.
        watch: for the progress of looking at photos.

    Raises:
        SarTrainError: settings, backbone or data cannot be used.
    """
    run = outline(dataclasses.replace(config, cache_dir=None))
    dataset, plan = run.features.dataset, run.plan
    learned = Counter(dataset.photos("train")[row].label for row in run.learned_rows)
    counts = {split: Counter(photo.label for photo in dataset.photos(split)) for split in SPLITS}
    classes = tuple(
        ClassPreview(
            dataset.class_names[label],
            **{split: counts[split][label] for split in SPLITS},
            learned=learned[label],
            new=label in plan.new,
        )
        for label in sorted((*plan.base, *plan.new))
    )
    checked = check_dataset(dataset, watch=watch) if isinstance(run.features, PhotoFeatures) else None
    names = tuple(duplicates([one.name for one in classes], {}))
    tell("trying a few photos and steps")
    novel, expected = _tried(run)
    return Preview(
        config.data,
        _layout(config, run),
        dataset.split_origin,
        plan.protocol,
        plan.split,
        classes,
        checked,
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
    """Return how the photos lie, in words."""
    if not isinstance(run.features, PhotoFeatures):
        return "features that ship with this package" if config.data == DEMO else "a feature file"
    path, key = locate(config.data, Path(config.data_root) if config.data_root else None)
    if key:
        return f"{key}, in CoOp's layout"
    reader = reader_of(path)
    name = next((name for name, kind in readers.entries.items() if type(reader) is kind), "")
    dataset, words = run.features.dataset, _LAYOUTS.get(name, name)
    in_splits = name == "folder" and len(dataset.splits) > 1 and dataset.split_origin == "given"
    return f"{words}, in folders of splits" if in_splits else words


def _tried(run: Outline) -> tuple[dict[str, Any] | None, Expected]:
    """Return the novel names, and the time that a run may take."""
    config, dataset, features, schedule = run.config, run.features.dataset, run.features, run.schedule
    rows = run.learned_rows
    evaluated = frozenset((*run.plan.base, *run.plan.new))
    tested = sum(photo.label in evaluated for photo in dataset.photos(run.plan.split))
    validated = 0 if run.plan.split == "val" else min(MOST_VALIDATION, len(dataset.photos("val")))
    sound = _sound(features, rows, max(2 * _ENCODED, schedule.batch_size))
    per_photo = _seconds_per_photo(features, sound) if isinstance(features, PhotoFeatures) else None
    views = 1 if run.image_prompts else config.views
    photos = len(rows) * views + tested + validated if per_photo is not None else 0
    names = run.names(run.plan.base)
    handcrafted = run.backbone.embed_names(names, run.teacher)
    begun = time.perf_counter()
    novel = None if run.novel_source is None or run.novel_source.form == "llm" else run.novel_names(handcrafted)
    context = RunContext.of(run, _small_task(run, sound, handcrafted), novel)
    regularisation = context.regularisation()
    prepared = time.perf_counter() - begun
    steps = schedule.epochs * max(1, len(rows) // schedule.batch_size)
    step = loop.OptimiserStep(
        run.backbone,
        context.task,
        context.start(),
        regularisation,
        precision=config.precision,
        micro_batch=config.micro_batch,
    )
    batch = torch.arange(len(context.task.labels))
    step(batch, 0.5)  # the first one is slower
    training = prepared + steps * statistics.median(_seconds(lambda: step(batch, 0.5)) for _ in range(_STEPS))
    again = training if config.statistics and trains_again(context) else 0.0
    encoding = None if per_photo is None else per_photo * photos
    described = None
    if run.novel_source is not None:
        some = () if novel is None else novel.names[:5]
        described = {"source": config.novel, "count": None if novel is None else len(novel.names), "first": list(some)}
    return described, Expected(encoding, training, again, photos, steps)


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


def _small_task(run: Outline, rows: Sequence[int], handcrafted: Tensor) -> Task:
    """Return a task of one batch: random features, which take as long as real ones, and crops where they are needed."""
    size = min(run.schedule.batch_size, len(rows))
    generator = torch.Generator().manual_seed(0)
    random = torch.nn.functional.normalize(torch.randn(size, 1, run.backbone.embed_dim, generator=generator), dim=-1)
    names = run.names(run.plan.base)
    crops = random_crops(run.features, rows[:size], run.config) if run.image_prompts else None
    return Task(random, torch.arange(size) % len(names), names, handcrafted, crops)


def _seconds_per_photo(features: PhotoFeatures, rows: Sequence[int]) -> float | None:
    """Return the seconds that a photo takes to decode and encode, after some that warm up; None of fewer than two."""
    half = min(_ENCODED, len(rows) // 2)
    if not half:
        return None
    features.plain("train", rows[:half])
    return _seconds(lambda: features.plain("train", rows[half : 2 * half])) / half


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
