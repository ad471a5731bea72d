"""One run from settings to record: the use case under ``sar-train``, callable from Python."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sar_train import checkpoint, loop, mini
from sar_train.backbone import Backbone
from sar_train.backbone import load as load_backbone
from sar_train.config import RunConfig
from sar_train.data.features import save_features
from sar_train.data.photos import Split
from sar_train.data.shots import few_shot
from sar_train.data.source import FeatureSource, PhotoOptions, PhotoSource, open_source, to_feature_set
from sar_train.errors import ConfigError, RunError
from sar_train.evaluate import Evaluation, evaluate, harmonic_mean
from sar_train.novel import NovelNames, novel_names
from sar_train.probe import linear_probe
from sar_train.prompt_method import PromptMethod, Schedule, methods
from sar_train.prompts import Prompts
from sar_train.protocol import Plan, plan
from sar_train.record import make_record
from sar_train.regulariser import regularisers

Tell = Callable[[str], None]
_SAVE_EVERY = 5.0
"""Seconds between saved states."""


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


def run(config: RunConfig, out: Path, *, tell: Tell = lambda text: None, resume: bool = True) -> checkpoint.Run:
    """Train one prompt and leave ``prompts.safetensors`` and ``record.json`` in ``out``.

    Args:
        config: the settings.
        out: the run's folder; an unfinished run of the same settings in it is taken up where it was.
        tell: gets progress as short lines.
        resume: False starts anew.

    Raises:
        SarTrainError: something cannot be used; nothing is half-written.
    """
    began = time.monotonic()
    if (out / checkpoint.RECORD).is_file():
        raise RunError(f"{out} holds a finished run: choose another --out, or remove it first")
    setting = prepare(config, tell)
    zero_shot = setting.judge(setting.handcrafted)
    tell(f"zero-shot: {describe(zero_shot)}")
    probe_accuracy = _probe(setting)
    prepared = time.monotonic()
    kind = methods.get(config.method)
    method = _make_method(kind, config, setting.backbone, setting.problem.class_names)
    out.mkdir(parents=True, exist_ok=True)
    state = _start(setting, method, out, resume=resume, tell=tell)
    loop.train(
        setting.backbone,
        setting.problem,
        state,
        setting.schedule,
        _regularisation(setting),
        _after_epoch(setting, out, tell),
    )
    trained = time.monotonic()
    with torch.no_grad():
        prompts = method.prompts()
    result = setting.judge(lambda names: setting.backbone.embed_names(names, prompts))
    timing = {
        "prepare_seconds": prepared - began,
        "train_seconds": trained - prepared,
        "evaluate_seconds": time.monotonic() - trained,
    }
    finished = checkpoint.Run(
        prompts=prompts,
        method=config.method,
        backbone_name=config.backbone,
        pretrained=config.pretrained,
        weights_digest=setting.backbone.weights_digest,
        template=setting.template,
        class_names=tuple(setting.problem.class_names),
        regularisers={"sar": config.section("sar", regularisers.get("sar").Config).weight} if config.sar else {},
        record=make_record(setting, result, zero_shot, probe_accuracy, state.history, timing),
    )
    checkpoint.save_run(out, finished)
    (out / checkpoint.STATE).unlink(missing_ok=True)
    return finished


def prepare(config: RunConfig, tell: Tell = lambda text: None) -> Setting:
    """Load backbone and data, draw the shots, choose classes and novel names; nothing is written."""
    method = methods.get(config.method)
    config.section(config.method, method.Config)
    sar = config.section("sar", regularisers.get("sar").Config)
    unknown = set(config.sections) - {"sar", config.method}
    if unknown:
        raise ConfigError(f"settings for {', '.join(sorted(unknown))}, but this run uses {config.method} and sar")
    backbone = load_backbone(config.backbone, config.pretrained, device=config.device)
    source = _open(config, backbone)
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
        prompts = _make_method(method, config, backbone, base).prompts()
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


def _open(config: RunConfig, backbone: Backbone) -> FeatureSource | PhotoSource:
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


def write_features(config: RunConfig, path: Path, *, command: str = "") -> None:
    """Write the features of all photos (plain views) to a file that ``sar-train`` reads in place of them."""
    backbone = load_backbone(config.backbone, config.pretrained, device=config.device)
    save_features(to_feature_set(_open(config, backbone), {"command": command} if command else None), path)


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


def _probe(setting: Setting) -> float:
    """Accuracy in percent of a linear probe on the same shots, on the base classes."""
    config, source, base = setting.config, setting.source, setting.plan.base
    labels = source.labels("val").tolist()
    drawn = few_shot(source.labels("train").tolist(), labels, config.shots, config.seed).val
    rows = [row for row in drawn if labels[row] in base]
    val = source.plain("val", rows), torch.tensor([base.index(labels[row]) for row in rows], dtype=torch.long)
    judged = setting.judge.base
    if judged is None:
        return float("nan")
    return linear_probe(setting.problem.features, setting.problem.labels, *judged[:2], val=val, seed=config.seed)


def _make_method(
    kind: type[PromptMethod], config: RunConfig, backbone: Backbone, class_names: Sequence[str]
) -> PromptMethod:
    generator = torch.Generator().manual_seed(config.seed)
    return kind(config.section(config.method, kind.Config), backbone, class_names, generator)


def _regularisation(setting: Setting) -> loop.Regularisation | None:
    if setting.novel is None:
        return None
    kind = regularisers.get("sar")
    config = setting.config.section("sar", kind.Config)
    names = [*setting.problem.class_names, *setting.novel.names]
    teacher = setting.handcrafted(names) if config.teacher == "template" else _ensemble(setting.backbone, names)
    return loop.Regularisation(kind(config), setting.novel.names, teacher)


def _ensemble(backbone: Backbone, names: Sequence[str]) -> Tensor:
    """(C, D) mean over CLIP's 80 templates, normalised before and after."""
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    rows = torch.stack([backbone.embed_names(names, backbone.handcrafted(text)) for text in templates])
    return normalize(rows.mean(0), dim=-1)


def _start(setting: Setting, method: PromptMethod, out: Path, *, resume: bool, tell: Tell) -> loop.State:
    state = loop.start(method, setting.schedule, setting.config.seed)
    stored = checkpoint.load_state(out) if resume else None
    if stored:
        tensors, meta = stored
        if meta["config"] != _identity(setting.config):
            raise RunError(f"{out} holds an unfinished run with other settings: choose another --out, or --no-resume")
        state.restore(tensors, meta["epoch"], meta["history"])
        tell(f"taking up the run after epoch {state.epoch}")
    return state


def _identity(config: RunConfig) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in ("device", "cache_dir")}


def _after_epoch(setting: Setting, out: Path, tell: Tell) -> Callable[[loop.State], None]:
    """Show the loss and what is left after each epoch; save the state every few seconds."""
    began = saved = time.monotonic()
    first: int | None = None

    def after(state: loop.State) -> None:
        nonlocal saved, first
        first = state.epoch - 1 if first is None else first
        now = time.monotonic()
        left = (now - began) / (state.epoch - first) * (setting.schedule.epochs - state.epoch)
        terms = ", ".join(f"{k} {v:.3f}" for k, v in state.history[-1].items() if k not in ("epoch", "learning_rate"))
        tell(f"epoch {state.epoch}/{setting.schedule.epochs}  {terms}  about {left:.0f} s left")
        if now - saved > _SAVE_EVERY and state.epoch < setting.schedule.epochs:
            meta = {"config": _identity(setting.config), "epoch": state.epoch, "history": state.history}
            checkpoint.save_state(out, state.tensors(), meta)
            saved = now

    return after


def describe(parts: dict[str, Evaluation | None]) -> str:
    """``base 60.7 % / new 59.1 % (harmonic mean 59.9 %)``, as far as there is."""
    base, new = parts["base"], parts["new"]
    if base is None:
        return "nothing to judge on"
    if new is None:
        return f"accuracy {base.accuracy:.2f} %"
    mean = harmonic_mean(base.accuracy, new.accuracy)
    return f"base {base.accuracy:.2f} % / new {new.accuracy:.2f} % (harmonic mean {mean:.2f} %)"


def remove(out: Path) -> None:
    """Delete a run's own files and, if nothing else is in it, its folder."""
    for name in (checkpoint.PROMPTS, checkpoint.RECORD, checkpoint.STATE):
        (out / name).unlink(missing_ok=True)
    if out.is_dir() and not any(out.iterdir()):
        shutil.rmtree(out)
