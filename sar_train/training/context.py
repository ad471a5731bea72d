"""The preparation of a run: backbone, images, classes, names and schedule, chosen from the settings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sar_train.clip import backbone as backbones
from sar_train.clip import mini
from sar_train.clip.backbone import TEMPLATES, Backbone
from sar_train.config.run import RunConfig
from sar_train.data.image_source import ImageDataSource
from sar_train.data.images import DataOptions, Split
from sar_train.data.progress import ProgressCallback
from sar_train.data.source import DataSource, open_source
from sar_train.errors import ConfigError
from sar_train.evaluation.accuracy import EvaluationSplit, Evaluator
from sar_train.methods.base import Classes, PromptMethod, Schedule, Setup, methods
from sar_train.novel_names import NovelNames, NovelSource, SourceOptions, novel_names, open_novel_source
from sar_train.novel_names.gather import overlap_told
from sar_train.regularisers.base import regularisers
from sar_train.training.identity import check_sections, regulariser_of, regulariser_settings
from sar_train.training.protocol import Plan, plan
from sar_train.training.task import FewShotTask, Regularisation

MOST_HELD = 1000
"""Validation images that confidence is fitted on; a quantile of as many is known to a point."""


@dataclass(frozen=True)
class RunContext:
    """Everything that a run is made from; only the parameters of ``method`` change while it trains.

    Attributes:
        config: the settings.
        backbone: the frozen CLIP.
        source: the images or features.
        plan: which classes are base and new, and the split that the run is evaluated on.
        template: the hand-crafted prompt that zero-shot is evaluated with.
        teacher: the one that the method compares with, which its reference implementation may have otherwise
            (`PromptMethod.settle`).
        method: at its start values; the seed decides what is random in them.
        schedule: the method's, with what the user set.
        task: what the method learns from.
        evaluator: the images that the run is evaluated on.
        held: validation images of the base classes, which confidence is fitted on; None where there are none, or the
            run is evaluated on them.
        novel: names for the regulariser; None without one.
    """

    config: RunConfig
    backbone: Backbone
    source: DataSource
    plan: Plan
    template: str
    teacher: str
    method: PromptMethod
    schedule: Schedule
    task: FewShotTask
    evaluator: Evaluator
    held: EvaluationSplit | None
    novel: NovelNames | None

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Return all settings of the method, and of the regulariser where it is on, defaults included."""
        found = {self.config.method: dataclasses.asdict(self.method.config)}
        if self.config.sar:
            found[regulariser_of(self.config.sections)] = dataclasses.asdict(regulariser_settings(self.config))
        return found

    @functools.cached_property
    def learned_from(self) -> str:
        """Return a digest of the classes and the drawn images, which shows if they changed under the same settings."""
        paths, drawn = self.source.paths("train") or (), self.source.draw(self.config.shots, self.config.seed)
        content = [list(self.task.class_names), [paths[row] for row in drawn.train] if paths else []]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @functools.cached_property
    def learned_rows(self) -> tuple[int, ...]:
        """Return the rows of the training split that are learned from, in the order of ``task``."""
        return _learned_rows(self.source, self.plan, self.config)

    def handcrafted(self, names: Sequence[str]) -> Tensor:
        """Return (C, D) embeddings under the hand-crafted template that the method compares with."""
        return self.backbone.embed_names(names, self.teacher)

    def regularisation(self) -> Regularisation | None:
        """Return the regulariser with its novel names and what it compares with; None where it takes no part."""
        if self.novel is None:
            return None
        config, novel = regulariser_settings(self.config), self.novel.names
        kind = regularisers.get(regulariser_of(self.config.sections))
        base = self.task.handcrafted
        single = torch.cat([base, self.handcrafted(novel)]) if novel else base
        names = [*self.task.class_names, *novel]
        by_template = getattr(config, "teacher", "template") == "template"  # only SAR has another teacher
        teacher = single if by_template else self.backbone.ensemble(names, TEMPLATES, unit=True)
        return Regularisation(kind(config), novel, teacher, single[len(names) - len(novel) :])

    def zero_shot(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Return (N, C) scaled cosines of (N, D) unit image features and C names without any learning."""
        rows = self.backbone.embed_names(names, self.template)
        return self.backbone.logit_scale * images.to(rows.device) @ rows.T


def prepare(config: RunConfig, tell: ProgressCallback = lambda text: None) -> RunContext:
    """Load backbone and data, draw the shots, choose classes and novel names; nothing is written.

    Raises:
        SarTrainError: settings, backbone, data or names cannot be used.
    """
    kind = methods.get(config.method)
    settings = config.section(config.method, kind.Config)
    check_sections(config)
    with_sar = config.sar and bool(regulariser_settings(config).weight)
    novel_source = open_names(config) if with_sar else None
    backbone = backbones.load(config.backbone, config.pretrained, device=config.device)
    if "image" in kind.towers:
        backbone.image_tower(config.method)
    source = open_data(config, backbone, tell)
    for warning in source.warnings:
        tell(f"Warning: {warning}")
    chosen = plan(
        config.protocol,
        source.class_names,
        published_split=source.published_split,
        base_classes=config.base_classes,
    )
    template = config.template or source.template
    known = source.name if source.published_split and not config.template else None
    settings, teacher = kind.settle(settings, template, known)
    base = [source.class_names[label] for label in chosen.base]
    new = [source.class_names[label] for label in chosen.new]
    generator = torch.Generator().manual_seed(config.seed)
    method = kind(settings, Setup(backbone, tuple(base), teacher, generator))
    _check_transfer(method, chosen, with_novel=novel_source is not None and novel_source.form != "none")
    schedule = _schedule(config, kind.schedule)
    _warn_of_averaging(config.method, method.averaging(schedule.epochs), tell)
    task = _task(source, chosen, config, backbone, teacher)
    if method.per_image:
        method.get_buffer("mean_image").copy_(task.features[:, 0].mean(0))
    tell(f"{source.name}: {len(base)} classes, {len(task.labels)} photos to learn from, evaluated on {chosen.split}")
    evaluator = Evaluator(
        _evaluation_split(source, chosen.base, chosen.split), _evaluation_split(source, chosen.new, chosen.split)
    )
    held = None if chosen.split == "val" else _evaluation_split(source, chosen.base, "val", most=MOST_HELD)
    if source.split_origin != "published":
        _warn_of_copies(source, task, [part for part in (evaluator.base, held) if part], tell)
    novel = None
    if novel_source:
        with torch.no_grad():
            prompts = method.prompts(Classes(tuple(base), task.handcrafted))
        novel = novel_names(
            novel_source,
            base,
            new=new,
            room=lambda name: backbone.text.fits(name, prompts),
            count=config.novel_count,
            seed=config.seed,
            exclude=config.exclude_eval_names,
            template=template,
        )
        _tell_of_novel(novel, tell, excluded=config.exclude_eval_names)
    return RunContext(
        config, backbone, source, chosen, template, teacher, method, schedule, task, evaluator, held, novel
    )


def _check_transfer(method: PromptMethod, chosen: Plan, *, with_novel: bool) -> None:
    """Raise ConfigError where prompts hold for the trained classes alone, and the run needs others."""
    if not method.transfers and (chosen.new or with_novel):
        what = "SAR's novel names" if with_novel else "the new classes of this protocol"
        raise ConfigError(
            f"class-specific contexts hold for the trained classes alone, {what} would have none: "
            "use --no-sar --protocol all, or a shared context"
        )


def _warn_of_averaging(method: str, weights: Sequence[float] | None, tell: ProgressCallback) -> None:
    """Warn if an average over epochs takes hardly more than one epoch, or leaves the last epochs out."""
    if weights is None:
        return
    epochs, top = len(weights), max(weights)
    last = max(epoch for epoch, weight in enumerate(weights, 1) if weight > 1e-3)
    if top > 0.9 or last < 0.75 * epochs:
        tell(
            f"Warning: of {epochs} epochs the average takes {top:.0%} from epoch {weights.index(top) + 1} and nothing "
            f"after epoch {last}: its mean and width are for another number of epochs (--set {method}.mean=…, "
            f"--set {method}.sigma=…)"
        )


def _warn_of_copies(
    source: DataSource, task: FewShotTask, parts: Sequence[EvaluationSplit], tell: ProgressCallback
) -> None:
    """Warn if held-out images are copies of images that are learned from."""
    copies = [(part.split, row) for part in parts for row in part.copies_of(task.features[:, 0])]
    if copies:
        split, row = copies[0]
        paths = source.paths(split)
        tell(
            f"Warning: {len(copies)} of {sum(len(part.labels) for part in parts)} held-out photos "
            + ("is a copy" if len(copies) == 1 else "are copies")
            + " of photos that are learned from"
            + (f", the first: {paths[row]}" if paths else "")
            + "; this run will look better than it is: remove copies"
        )


def _schedule(config: RunConfig, published: Schedule) -> Schedule:
    """Return the method's published schedule, with the rate for a `sar-mini` backbone and with what the user set."""
    rate = mini.scaled_rate(config.backbone, published.learning_rate, published.optimiser)
    published = dataclasses.replace(published, learning_rate=rate)
    names = ("epochs", "learning_rate", "batch_size")
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    return dataclasses.replace(published, **given)


def open_names(config: RunConfig) -> NovelSource:
    """Open the source of novel names; one that cannot be used is refused before anything is loaded."""
    root, cache = (Path(folder) if folder else None for folder in (config.data_root, config.cache_dir))
    return open_novel_source(config.novel, SourceOptions(root, cache, config.llm_url, config.llm_model))


def _tell_of_novel(novel: NovelNames, tell: ProgressCallback, *, excluded: bool) -> None:
    for warning in novel.warnings:
        tell(f"Warning: {warning}")
    tell(f"{len(novel.names)} novel names from {novel.source}{overlap_told(novel.overlap, excluded=excluded)}")


def open_data(
    config: RunConfig,
    backbone: Backbone,
    tell: ProgressCallback = lambda text: None,
    *,
    target: str | None = None,
) -> DataSource:
    """Open the data to train on, or a target: another dataset to evaluate on.

    Args:
        config: the settings.
        backbone: encodes images, or must have made the features.
        tell: gets a line now and then while images are encoded.
        target: a dataset of which only the test images are opened, or all images where it has no test split.

    Raises:
        DataError: nothing of that name, or data that cannot be used.
    """
    root, cache = (Path(folder) if folder else None for folder in (config.data_root, config.cache_dir))
    options = DataOptions(
        root,
        config.shots,
        config.seed,
        config.views,
        cache,
        tell,
        allow_missing=config.allow_missing,
        skip_unreadable=config.skip_unreadable,
    )
    return open_source(target or config.data, backbone, options, whole=target is not None)


def _learned_rows(source: DataSource, chosen: Plan, config: RunConfig) -> tuple[int, ...]:
    """Return the drawn rows of the base classes."""
    labels, base = source.labels("train").tolist(), set(chosen.base)
    return tuple(row for row in source.draw(config.shots, config.seed).train if labels[row] in base)


def _task(source: DataSource, chosen: Plan, config: RunConfig, backbone: Backbone, template: str) -> FewShotTask:
    labels = source.labels("train").tolist()
    place = {label: i for i, label in enumerate(chosen.base)}
    rows = _learned_rows(source, chosen, config)
    crops: Callable[[Tensor, int], Tensor] | None = None
    if "image" in methods.get(config.method).towers:
        if not isinstance(source, ImageDataSource):
            raise ConfigError(
                f"method {config.method} puts prompts into the image tower, so it needs the photos; {config.data} has "
                "only features that were made before: give a folder of photos or a dataset, or choose a method that "
                "prompts the text side alone (sar-train --list-methods)"
            )
        photos, drawn_rows = source, torch.tensor(rows)
        crops = lambda places, epoch: photos.crops(drawn_rows[places], epoch)  # noqa: E731
    base = [source.class_names[label] for label in chosen.base]
    features = source.features("train", rows) if crops is None else source.plain("train", rows)[:, None]
    return FewShotTask(
        features,
        torch.tensor([place[labels[row]] for row in rows]),
        base,
        backbone.embed_names(base, template),
        crops,
    )


def _evaluation_split(
    source: DataSource, classes: Sequence[int], split: Split, *, most: int | None = None
) -> EvaluationSplit | None:
    """Return the images of some classes; of more than ``most``, that many at random, the same ones in every run."""
    place = {label: i for i, label in enumerate(classes)}
    labels = source.labels(split)
    rows = torch.tensor([i for i, label in enumerate(labels.tolist()) if label in place], dtype=torch.long)
    if not len(rows):
        return None
    if most is not None and len(rows) > most:
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most].sort().values]
    names = [source.class_names[label] for label in classes]
    truth = torch.tensor([place[int(label)] for label in labels[rows]])
    return EvaluationSplit(names, source.plain(split, rows), truth, rows, split)
