"""The preparation of a run: backbone, images, classes, names and schedule, chosen from the settings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sar_train.clip import backbone as backbones
from sar_train.clip import mini
from sar_train.clip.backbone import TEMPLATES, Backbone
from sar_train.config.run import RunConfig
from sar_train.data.dataset import DataOptions
from sar_train.data.features import Features
from sar_train.data.opening import open_features
from sar_train.data.progress import ProgressCallback
from sar_train.data.protocol import Plan, plan
from sar_train.data.task import Task, learned_rows, make_task
from sar_train.errors import ConfigError
from sar_train.methods.base import GDA, Classes, PromptMethod, Schedule, Setup, method_kind
from sar_train.novel_names.gather import NovelNames
from sar_train.novel_names.gather import novel_names as gather_novel_names
from sar_train.novel_names.source import NovelSource, SourceOptions, open_novel_source
from sar_train.regularisers.base import Regularisation, regularisers
from sar_train.training import loop
from sar_train.training.identity import check_sections, regulariser_of, regulariser_settings
from sar_train.training.state import State, start


@dataclass(frozen=True)
class Outline:
    """A run before any of its photos is encoded.

    Attributes:
        config: the settings.
        backbone: the frozen CLIP.
        features: of the data.
        plan: which classes are base and new, and the split that the run is evaluated on.
        template: the hand-crafted prompt that zero-shot is evaluated with.
        teacher: the one that the method compares with, which its reference implementation may have otherwise
            (`PromptMethod.settle`).
        method: at its start values; the seed decides what is random in them.
        schedule: the method's, with what the user set.
        novel_source: of names for the regulariser; None without one.
    """

    config: RunConfig
    backbone: Backbone
    features: Features
    plan: Plan
    template: str
    teacher: str
    method: PromptMethod
    schedule: Schedule
    novel_source: NovelSource | None

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Return all settings of the method, and of the regulariser where it is on, defaults included."""
        settings = {self.config.method: dataclasses.asdict(self.method.config)}
        if self.config.sar:
            settings[regulariser_of(self.config.sections)] = dataclasses.asdict(regulariser_settings(self.config))
        return settings

    @functools.cached_property
    def learned_rows(self) -> tuple[int, ...]:
        """Return the rows of the training split that are learned from, in the order of a run's task."""
        return learned_rows(self.features, self.plan, self.config)

    @property
    def image_prompts(self) -> bool:
        """Return True if the method prompts the image tower, so that it learns from crops of photos."""
        return "image" in self.method.towers

    def names(self, labels: Sequence[int]) -> list[str]:
        """Return class names by label."""
        return [self.features.dataset.class_names[label] for label in labels]

    def novel_names(self, handcrafted: Tensor) -> NovelNames | None:
        """Gather the novel names; ``handcrafted`` are the (C, D) embeddings of the base classes."""
        if self.novel_source is None:
            return None
        base, config = self.names(self.plan.base), self.config
        with torch.no_grad():
            prompts = self.method.prompts(Classes(tuple(base), handcrafted))
        return gather_novel_names(
            self.novel_source,
            base,
            new=self.names(self.plan.new),
            room=lambda name: self.backbone.text.fits(name, prompts),
            count=config.novel_count,
            seed=config.seed,
            exclude=config.exclude_eval_names,
            template=self.template,
        )


@dataclass(frozen=True)
class RunContext(Outline):
    """Everything that a run is made from; only the parameters of ``method`` change while it trains.

    Attributes:
        task: what the method learns from, and what it is evaluated on.
        novel: names for the regulariser; None without one.
    """

    task: Task
    novel: NovelNames | None

    @classmethod
    def of(cls, outline: Outline, task: Task, novel: NovelNames | None) -> RunContext:
        """Return the context of a run on this task."""
        values = {field.name: getattr(outline, field.name) for field in dataclasses.fields(Outline)}
        return cls(**values, task=task, novel=novel)

    @functools.cached_property
    def learned_from(self) -> str:
        """Return a digest of the classes and the drawn photos, which shows if they changed under the same settings."""
        photos, drawn = self.features.dataset.photos("train"), self.features.draw(self.config.shots, self.config.seed)
        content = [list(self.task.class_names), [photos[row].path for row in drawn.train if photos[row].path]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

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

    def start(self) -> State:
        """Return the state before the first epoch."""
        return start(self.method, self.schedule, self.config.seed, scaled=self.config.precision == "fp16")

    def step(self, state: State) -> loop.OptimiserStep:
        """Return the optimiser step of a state."""
        options: Any = {"precision": self.config.precision, "micro_batch": self.config.micro_batch}
        return loop.OptimiserStep(self.backbone, self.task, state, self.regularisation(), **options)

    def zero_shot(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Return (N, C) scaled cosines of (N, D) unit image features and C names without any learning."""
        rows = self.backbone.embed_names(names, self.template)
        return self.backbone.logit_scale * images.to(rows.device) @ rows.T


def outline(config: RunConfig, tell: ProgressCallback = lambda text: None, like: Outline | None = None) -> Outline:
    """Load the backbone, open the data, and choose classes and schedule; no photo is encoded, and nothing is written.

    Args:
        config: the settings.
        tell: gets warnings of the data.
        like: an outline of the same backbone and data, which are not opened again.

    Raises:
        SarTrainError: settings, backbone or data cannot be used.
    """
    kind = method_kind(config.method)
    settings = config.section(config.method, kind.Config)
    check_sections(config)
    if config.method == GDA and not config.statistics:
        raise ConfigError("method gda is the class model: leave --no-statistics out, or choose zero-shot")
    with_sar = config.sar and kind.trains and bool(regulariser_settings(config).weight)
    root, cache = (Path(folder) if folder else None for folder in (config.data_root, config.cache_dir))
    source_options = SourceOptions(root, cache, config.llm_url, config.llm_model)
    # A source that cannot be used is refused before anything is loaded.
    novel_source = open_novel_source(config.novel, source_options) if with_sar else None
    backbone = like.backbone if like else backbones.load(config.backbone, config.pretrained, device=config.device)
    if kind.trains or backbone.tower is None:
        _ = backbone.text  # which no prompt can be learned without
    if "image" in kind.towers:
        backbone.image_tower(config.method)
    features = like.features if like else open_data(config, backbone, tell)
    dataset = features.dataset
    for warning in dataset.warnings:
        tell(f"Warning: {warning}")
    chosen = plan(
        config.protocol, dataset.class_names, published_split=dataset.published_split, base_classes=config.base_classes
    )
    template = config.template or dataset.template
    published = dataset.name if dataset.published_split and not config.template else None
    settings, teacher = kind.settle(settings, template, published)
    base = tuple(dataset.class_names[label] for label in chosen.base)
    generator = torch.Generator().manual_seed(config.seed)
    method = kind(settings, Setup(backbone, base, teacher, generator))
    with_novel = novel_source is not None and novel_source.form != "none"
    if not method.transfers and (chosen.new or with_novel):
        others = "SAR's auxiliary names" if with_novel else "the new classes of this protocol"
        raise ConfigError(
            f"class-specific contexts exist only for trained classes, {others} would have none: "
            "use --no-sar --protocol all, or a shared context"
        )
    schedule = _schedule(config, kind)
    _warn_of_average(config.method, method.averaging(schedule.epochs), tell)
    return Outline(config, backbone, features, chosen, template, teacher, method, schedule, novel_source)


def _schedule(config: RunConfig, kind: type[PromptMethod]) -> Schedule:
    """Return a method's schedule with what the user set; ``sar-mini`` scales its rate."""
    rate = mini.scaled_rate(config.backbone, kind.schedule.learning_rate, kind.schedule.optimiser)
    set_by_user = {name: getattr(config, name) for name in ("epochs", "learning_rate", "batch_size")}
    set_by_user = {name: value for name, value in set_by_user.items() if value is not None}
    return dataclasses.replace(kind.schedule, **{"learning_rate": rate} | set_by_user)


def _warn_of_average(method: str, weights: Sequence[float] | None, tell: ProgressCallback) -> None:
    """Warn where the average of the epochs ignores most of them."""
    if not weights:
        return
    epochs, top = len(weights), max(weights)
    last = max(epoch for epoch, weight in enumerate(weights, 1) if weight > 1e-3)
    if top > 0.9 or last < 0.75 * epochs:
        tell(
            f"Warning: of {epochs} epochs the average takes {top:.0%} from epoch {weights.index(top) + 1} and "
            f"nothing after epoch {last}: its mean and width are for another number of epochs (--set "
            f"{method}.mean=…, --set {method}.sigma=…)"
        )


def prepare(config: RunConfig, tell: ProgressCallback = lambda text: None) -> RunContext:
    """Load backbone and data, draw the shots, choose classes and novel names; nothing but encoded photos is written.

    Raises:
        SarTrainError: settings, backbone, data or names cannot be used.
    """
    run = outline(config, tell)
    dataset = run.features.dataset
    task = make_task(run.features, run.plan, config, run.backbone, run.teacher, image_prompts=run.image_prompts)
    if run.method.per_image:
        run.method.get_buffer("mean_image").copy_(task.features[:, 0].mean(0))
    tell(
        f"{dataset.name}: {len(run.plan.base)} classes, {len(task.labels)} photos to learn from, "
        f"evaluated on {run.plan.split}"
    )
    novel = run.novel_names(task.handcrafted)
    if novel:
        for warning in novel.warnings:
            tell(f"Warning: {warning}")
        done = "left out" if config.exclude_eval_names else "kept"
        overlap = f"; {novel.overlap} evaluated new names among them {done}" if novel.overlap else ""
        tell(f"{len(novel.names)} auxiliary names from {novel.source}{overlap}")
    return RunContext.of(run, task, novel)


def open_data(
    config: RunConfig, backbone: Backbone, tell: ProgressCallback = lambda text: None, *, target: str | None = None
) -> Features:
    """Open the data to train on, or a target: another dataset to evaluate on.

    Args:
        config: the settings.
        backbone: encodes photos, or must have made the features.
        tell: gets a line now and then while photos are encoded.
        target: a dataset of which only the test photos are opened, or all photos where it has no test split.

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
        exclude=Path(config.exclude) if config.exclude else None,
        target=target is not None,
    )
    return open_features(target or config.data, backbone, options)
