"""What does not change while a run trains: backbone, photos, classes, names and schedule, chosen from the settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sar_train import backbone as backbones
from sar_train import loop, mini
from sar_train.backbone import Backbone
from sar_train.config import RunConfig
from sar_train.data.photos import Split
from sar_train.data.shots import few_shot
from sar_train.data.source import FeatureSource, PhotoOptions, PhotoSource, open_source
from sar_train.errors import ConfigError
from sar_train.evaluate import Evaluation, evaluate
from sar_train.novel import NovelNames, novel_names
from sar_train.prompt_method import PromptMethod, Schedule, methods
from sar_train.prompts import Prompts
from sar_train.protocol import Plan, plan
from sar_train.regulariser import regularisers

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Judge:
    """The photos a run is judged on: features (N, D) and labels (N,) of base and of new classes."""

    base: tuple[Tensor, Tensor, Sequence[str]] | None
    new: tuple[Tensor, Tensor, Sequence[str]] | None

    def __call__(self, embed: Callable[[Sequence[str]], Tensor]) -> dict[str, Evaluation | None]:
        """Evaluate both parts, each against its own class names."""
        parts = {"base": self.base, "new": self.new}
        return {
            name: None if part is None else evaluate(part[0], part[1], embed(part[2]), part[2])
            for name, part in parts.items()
        }


@dataclass(frozen=True)
class Setting:
    """What does not change while a run trains."""

    config: RunConfig
    backbone: Backbone
    source: FeatureSource | PhotoSource
    plan: Plan
    template: str
    problem: loop.Problem
    judge: Judge
    novel: NovelNames | None
    schedule: Schedule

    def handcrafted(self, names: Sequence[str]) -> Tensor:
        """(C, D) embeddings under the hand-crafted template."""
        return self.backbone.embed_names(names, self.backbone.handcrafted(self.template))


def prepare(config: RunConfig, tell: Tell = lambda text: None) -> Setting:
    """Load backbone and data, draw the shots, choose classes and novel names; nothing is written.

    Raises:
        SarTrainError: settings, backbone, data or names cannot be used.
    """
    method = methods.get(config.method)
    config.section(config.method, method.Config)
    sar = config.section("sar", regularisers.get("sar").Config)
    unknown = set(config.sections) - {"sar", config.method}
    if unknown:
        raise ConfigError(f"settings for {', '.join(sorted(unknown))}, but this run uses {config.method} and sar")
    backbone = backbones.load(config.backbone, config.pretrained, device=config.device)
    source = open_data(config, backbone)
    for warning in source.warnings:
        tell(f"warning: {warning}")
    chosen = plan(config.protocol, len(source.class_names), published_split=source.published_split)
    template = config.template or source.template
    base = [source.class_names[label] for label in chosen.base]
    new = [source.class_names[label] for label in chosen.new]
    features, labels = _shots(source, chosen, config)
    tell(f"{source.name}: {len(base)} classes, {len(labels)} photos to learn from, judged on {chosen.split}")
    problem = loop.Problem(features, labels, base, backbone.embed_names(base, backbone.handcrafted(template)))
    judge = Judge(_judged(source, chosen.base, chosen.split), _judged(source, chosen.new, chosen.split))
    schedule = _schedule(config, method.schedule)
    with torch.no_grad():
        prompts = make_method(config, backbone, base).prompts()
    novel = _novel(config, backbone, prompts, base, new, tell) if config.sar and sar.weight else None
    return Setting(config, backbone, source, chosen, template, problem, judge, novel, schedule)


def _schedule(config: RunConfig, published: Schedule) -> Schedule:
    """The method's published schedule, at sar-mini's rate where that is the backbone, and what the user set."""
    if config.backbone == mini.NAME:
        published = dataclasses.replace(published, learning_rate=mini.RATE_FACTOR * published.learning_rate)
    names = ("epochs", "learning_rate", "batch_size")
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    return dataclasses.replace(published, **given)


def _novel(
    config: RunConfig, backbone: Backbone, prompts: Prompts, base: Sequence[str], new: Sequence[str], tell: Tell
) -> NovelNames:
    novel = novel_names(
        config.novel,
        base,
        new=new,
        tower=backbone.text,
        prompts=prompts,
        count=config.novel_count,
        seed=config.seed,
        exclude=config.exclude_eval_names,
    )
    for warning in novel.warnings:
        tell(f"warning: {warning}")
    what = "left out" if config.exclude_eval_names else "kept"
    tell(f"{len(novel.names)} novel names from {novel.source}; {novel.overlap} of the evaluated new names {what}")
    return novel


def open_data(config: RunConfig, backbone: Backbone) -> FeatureSource | PhotoSource:
    """The photos or features that the settings name."""
    return open_source(
        config.data,
        Path(config.data_root) if config.data_root else None,
        backbone,
        config.shots,
        config.seed,
        config.views,
        PhotoOptions(
            cache_dir=Path(config.cache_dir) if config.cache_dir else None,
            progress=True,
            allow_missing=config.allow_missing,
            skip_unreadable=config.skip_unreadable,
        ),
    )


def _shots(source: FeatureSource | PhotoSource, chosen: Plan, config: RunConfig) -> tuple[Tensor, Tensor]:
    labels = source.labels("train").tolist()
    place = {label: i for i, label in enumerate(chosen.base)}
    drawn = few_shot(labels, source.labels("val").tolist(), config.shots, config.seed).train
    rows = [row for row in drawn if labels[row] in place]
    return source.features("train", torch.tensor(rows)), torch.tensor([place[labels[row]] for row in rows])


def _judged(
    source: FeatureSource | PhotoSource, classes: Sequence[int], split: Split
) -> tuple[Tensor, Tensor, Sequence[str]] | None:
    place = {label: i for i, label in enumerate(classes)}
    labels = source.labels(split)
    rows = torch.tensor([i for i, label in enumerate(labels.tolist()) if label in place], dtype=torch.long)
    if not len(rows):
        return None
    names = [source.class_names[label] for label in classes]
    return source.plain(split, rows), torch.tensor([place[int(label)] for label in labels[rows]]), names


def make_method(config: RunConfig, backbone: Backbone, class_names: Sequence[str]) -> PromptMethod:
    """The method that the settings ask for, at its start values; the seed decides what is random in them."""
    kind = methods.get(config.method)
    generator = torch.Generator().manual_seed(config.seed)
    return kind(config.section(config.method, kind.Config), backbone, class_names, generator)
