"""Plan runs: the field's protocols (methods x datasets x seeds x shots, with and without SAR) and sweep files.

A sweep file has ``seeds``, ``[common]`` settings and one ``[runs.NAME]`` table for each row of the resulting table::

    experiment = "base-to-new"      # which tables the results belong to; default "custom"
    seeds = [1, 2, 3]
    targets = ["pacs/sketch"]       # optional: further datasets that each prompt is evaluated on
    deals = [1, 2, 3]               # optional: base_classes = "deal:1", …, the classes split at random, each for itself

    [common]
    data = "caltech101"

    [[sets]]                        # optional: each run once with each of these settings, such as data
    data = "caltech101"

    [runs."coop+sar"]
    method = "coop"
    sar.weight = 0.3

Settings are those of ``sar-train --config``.
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sar_train.clip import mini
from sar_train.config.run import RunConfig, build, merge, read_toml
from sar_train.data.opening import locate
from sar_train.data.protocol import DEAL
from sar_train.errors import ConfigError
from sar_train.experiment.job import Experiment, Job
from sar_train.methods.base import methods
from sar_train.training.identity import SAR, check_sections, regulariser_of

Modes = Literal["both", "on", "off"]
PROTOCOLS: dict[Experiment, str] = {
    "base-to-new": "base-to-new",
    "few-shot": "all",
    "cross-dataset": "all",
    "domain-generalisation": "all",
}
"""The protocol of each experiment's runs (`sar_train.data.protocol`)."""
ELEVEN = (
    "imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397",
    "dtd", "eurosat", "ucf101",
)  # fmt: skip
VARIANTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "datasets": ELEVEN,
        "methods": ("all", "dept:kgcoop"),
        "backbone": "ViT-B-16-quickgelu",
        "pretrained": "openai",
        "device": "cuda",
        "precision": "fp16",
    }
}
"""Options of ``base-to-new`` by the name of a preset. ``paper``: the field's average over eleven datasets under CLIP
ViT-B/16, in the precision of CoOp's configuration."""
FIXED = ("method", "data", "seed", "shots", "protocol")
"""Settings that a grid is made of."""
KEYS = ("experiment", "seeds", "deals", "targets", "common", "sets", "runs")


@dataclass(frozen=True)
class Grid:
    """The grid that a protocol is run over.

    Attributes:
        methods: names, ``dept:kgcoop`` for DePT on KgCoOp; ``all`` for every one that the backbone can train.
        datasets: to train on; ``all`` for the field's eleven.
        seeds: of each.
        modes: without SAR, with it, or both.
        shots: images per class.
        targets: further datasets that each prompt is evaluated on.
        common: settings of all runs, over those of the methods' papers.
        per_method: settings of each method's runs, over those.
        overrides: settings from the command line, over all.
    """

    methods: Sequence[str]
    datasets: Sequence[str]
    seeds: Sequence[int] = (1, 2, 3)
    modes: Modes = "both"
    shots: Sequence[int] = (16,)
    targets: Sequence[str] = ()
    common: Mapping[str, Any] = field(default_factory=dict)
    per_method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


def jobs(experiment: Experiment, grid: Grid) -> list[Job]:
    """Return the runs of a protocol: datasets outermost, then seeds, shots, methods, and without SAR before with it.

    Raises:
        ConfigError: an unknown method, or settings that cannot be used.
    """
    backbone = str({**grid.common, **grid.overrides}.get("backbone", "sar-mini"))
    names = chosen_methods(grid.methods, backbone)
    for name in grid.per_method:
        methods.get(name.partition(":")[0])
    regulariser = regulariser_of(merge(grid.common, *grid.per_method.values(), grid.overrides)["sections"])
    used = {regulariser, *(name.partition(":")[0] for name in names)}
    common = merge(grid.common, grid.overrides)
    if foreign := sorted(set(common["sections"]) - used):
        raise ConfigError(f"settings for {', '.join(foreign)}, but these runs use {', '.join(sorted(used))}")
    for name, method_settings in grid.per_method.items():
        foreign = sorted(set(merge(method_settings)["sections"]) - {regulariser, name.partition(":")[0]})
        if foreign:
            raise ConfigError(f"methods.{name}: settings for {', '.join(foreign)}, which {name} does not use")
    if fixed := sorted(set(FIXED) & set().union(grid.common, *grid.per_method.values())):
        raise ConfigError(f"{', '.join(fixed)}: given by options of the command, not in --config")
    sar = {"both": (False, True), "on": (True,), "off": (False,)}[grid.modes]
    datasets = ELEVEN if tuple(grid.datasets) == ("all",) else grid.datasets
    return [
        _job(experiment, grid, name, dataset, seed, shots, backbone=backbone, regulariser=regulariser * with_sar)
        for dataset in datasets
        for seed in grid.seeds
        for shots in grid.shots
        for name in names
        for with_sar in sar
    ]


def chosen_methods(names: Sequence[str], backbone: str) -> list[str]:
    """Return the methods asked for; ``all`` are those that the backbone can train, as far as its name tells.

    Raises:
        ConfigError: no such method.
    """
    chosen: list[str] = []
    for name in names:
        if name == "all":
            entries = methods.entries.items()
            chosen += [key for key, kind in entries if "image" not in kind.towers or backbone != mini.NAME]
        else:
            if "image" in methods.get(name.partition(":")[0]).towers and backbone == mini.NAME:
                raise ConfigError(
                    f"method {name} prompts the image tower, and that of {backbone} is no vision transformer: choose "
                    f"--backbone {mini.VIT_NAME}, ViT-B-16, …"
                )
            chosen.append(name)
    return list(dict.fromkeys(chosen))


def _job(
    experiment: Experiment,
    grid: Grid,
    name: str,
    dataset: str,
    seed: int,
    shots: int,
    *,
    backbone: str,
    regulariser: str,
) -> Job:
    method, _, on = name.partition(":")
    kind = methods.get(method)
    root = {**grid.common, **grid.overrides}.get("data_root")
    dataset_key = locate(dataset, Path(root) if root else None)[1]  # DATA/imagenet and ImageNet are imagenet too
    published = dict(kind.published(experiment, shots=shots, dataset=dataset_key or dataset))
    if rate := published.get("learning_rate"):
        published["learning_rate"] = mini.scaled_rate(backbone, rate, kind.schedule.optimiser)
    fixed = {"method": method, "data": dataset, "seed": seed, "shots": shots, "protocol": PROTOCOLS[experiment]}
    settings = merge(
        published,
        grid.common,
        {method: {"on": on}} if on else {},
        grid.per_method.get(name, {}),
        grid.overrides,
        fixed,
    )
    settings["sar"] = bool(regulariser)
    section_names = {method, regulariser}
    settings["sections"] = {key: section for key, section in settings["sections"].items() if key in section_names}
    label = name + ("" if not regulariser else "+sar" if regulariser == SAR else f" with {regulariser}")
    return Job(experiment, label, build(RunConfig, settings, label), tuple(grid.targets))


def read_spec(path: Path, overrides: Mapping[str, Any] | None = None) -> list[Job]:
    """Read the runs of a sweep file: seeds outermost, then deals, sets and runs.

    Args:
        path: the file.
        overrides: settings that win over those of the file; a method's are for its own runs.

    Raises:
        ConfigError: not TOML, unknown keys, or settings that cannot be used; all problems of one run together.
    """
    spec = _checked(path)
    sweep = []
    unused = {name for name, value in (overrides or {}).items() if isinstance(value, Mapping)}
    for seed, deal, one, (name, run) in itertools.product(
        spec["seeds"], spec["deals"], spec["sets"], spec["runs"].items()
    ):
        settings = merge(spec["common"], one, {} if deal is None else {"base_classes": f"{DEAL}{deal}"}, run)
        section_names = {
            regulariser_of(settings["sections"]),
            str(settings.get("method", RunConfig.method)),
            *settings["sections"],
        }
        unused -= section_names
        run_overrides = {k: v for k, v in (overrides or {}).items() if not isinstance(v, Mapping) or k in section_names}
        config = build(RunConfig, merge(settings, run_overrides, {"seed": seed}), f"{path}, run {name}")
        check_sections(config)
        sweep.append(Job(spec["experiment"], name, config, tuple(spec["targets"])))
    if unused:
        raise ConfigError(f"settings for {', '.join(sorted(unused))}, but no run of {path} uses them")
    return sweep


def _checked(path: Path) -> dict[str, Any]:
    """Read a sweep file with its defaults, and make sure that every part has its form."""
    defaults = {"experiment": "custom", "seeds": [1], "deals": [None], "targets": [], "common": {}, "sets": [{}]}
    content = read_toml(path)
    spec: dict[str, Any] = defaults | content
    unknown = sorted(set(content) - set(KEYS))
    if unknown or not isinstance(spec.get("runs"), dict) or not spec["runs"]:
        problem = f"unknown {', '.join(unknown)}" if unknown else "no [runs.NAME]"
        raise ConfigError(f"{path}: {problem}; expected {', '.join(KEYS)} (sar-experiment run --help)")
    if spec["experiment"] not in typing.get_args(Experiment):
        raise ConfigError(f"{path}: experiment: expected one of {', '.join(typing.get_args(Experiment))}")
    for key, kind, expected in (
        ("seeds", int, "a list of whole numbers"),
        ("deals", int, "a list of whole numbers"),
        ("targets", str, "a list of datasets"),
        ("sets", dict, "one or more tables of settings, [[sets]]"),
    ):
        value = spec[key]
        few = key != "targets" and value == []
        if key in content and (not isinstance(value, list) or few or any(type(item) is not kind for item in value)):
            raise ConfigError(f"{path}: {key}: expected {expected}, got {value!r:.60}")
    for name, table in (("common", spec["common"]), *((f"runs.{name}", run) for name, run in spec["runs"].items())):
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name}: expected a table of settings")
    if any("seed" in table for table in (spec["common"], *spec["sets"], *spec["runs"].values())):
        raise ConfigError(f"{path}: seed: is given by seeds = [1, 2, 3] at the top")
    return spec
