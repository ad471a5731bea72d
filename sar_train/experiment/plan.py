"""Plan runs: by one of the field's protocols, or by a TOML file.

A plan lists its runs, one ``[runs.NAME]`` table for each row of the resulting table::

    experiment = "base-to-new"      # which tables the results belong to; default "custom"
    seeds = [1, 2, 3]
    targets = ["pacs/sketch"]       # optional: further datasets that each prompt is evaluated on
    deals = [1, 2, 3]               # optional: base_classes = "deal:1", …: random halves of the classes

    [common]
    data = "caltech101"

    [[sets]]                        # optional: each run once with each of these settings, such as data
    data = "caltech101"

    [runs."coop+sar"]
    method = "coop"
    sar.weight = 0.3

or it combines methods, datasets, seeds and shots in a protocol, each without SAR and with it. Everything but the
protocol is optional, and a protocol's name is the shortest plan::

    experiment = "few-shot"
    datasets = ["caltech101", "dtd"]
    seeds = [1, 2, 3]
    shots = [1, 2, 4, 8, 16]
    sar = "both"                    # or "on", "off"

    [common]
    views = 8

    [methods.coop]                  # or methods = ["coop", "tcp"]
    epochs = 50

Settings are those of ``sar-train --config``. They win over those of a method's paper, and those of one method over
common ones.
"""

from __future__ import annotations

import difflib
import itertools
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_train.clip import mini
from sar_train.config.run import RunConfig, build, merge, read_toml
from sar_train.data.layouts import find
from sar_train.data.opening import locate
from sar_train.data.protocol import DEAL
from sar_train.errors import ConfigError
from sar_train.experiment.job import Experiment, Job
from sar_train.methods.base import GDA, method_kind, methods
from sar_train.training.identity import SAR, check_sections, regulariser_of

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
FIXED = ("method", "data", "seed", "shots", "protocol", "sar")
"""Settings that a protocol combines."""
KINDS: dict[str, tuple[type, str]] = {
    "seeds": (int, "a list of whole numbers"),
    "shots": (int, "a list of whole numbers"),
    "deals": (int, "a list of whole numbers"),
    "targets": (str, "a list of datasets"),
    "datasets": (str, "a list of datasets"),
    "methods": (str, "a list of methods, or a table [methods.NAME] of settings for each"),
    "sets": (dict, "one or more tables of settings, [[sets]]"),
}
"""Kind and description of the lists in a plan."""
LISTED = ("experiment", "seeds", "deals", "targets", "common", "sets", "runs")
COMBINED = ("experiment", "datasets", "methods", "seeds", "shots", "sar", "targets", "common")


def read_plan(plan: str, options: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[Job]:
    """Return the runs of a plan.

    Args:
        plan: a protocol's name or a TOML file.
        options: replace keys of the plan.
        overrides: settings that win over all others; those of a method are for its own runs.

    Raises:
        ConfigError: not TOML, unknown keys, or settings that cannot be used; all problems of one run together.
    """
    if plan not in PROTOCOLS and not Path(plan).exists():
        near = difflib.get_close_matches(plan, PROTOCOLS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(PROTOCOLS)} or a TOML file"
        raise ConfigError(f"{plan}: neither a protocol nor a file; {hint}")
    file: dict[str, Any] = {"experiment": plan} if plan in PROTOCOLS else read_toml(Path(plan))
    per_method = file["methods"] if isinstance(file.get("methods"), dict) else {}
    content = {**file, **({"methods": [*per_method]} if per_method else {}), **options}
    _check(plan, content, per_method)
    if "runs" in content:
        return _listed(plan, content, overrides)
    return _combined(plan, content, per_method, overrides)


def _check(plan: str, content: Mapping[str, Any], per_method: Mapping[str, Any]) -> None:
    """Raise ConfigError for keys that do not belong to the kind of plan, and for values of another type."""
    keys = LISTED if "runs" in content else COMBINED
    if keys is LISTED and (combined := [key for key in COMBINED if key in content and key not in LISTED]):
        raise ConfigError(
            f"{plan}: {', '.join(combined)}: cannot be combined with [runs]; set data, method, shots and sar in "
            "[common], [[sets]] or [runs.NAME]"
        )
    if unknown := sorted(set(content) - set(keys)):
        raise ConfigError(f"{plan}: unknown {', '.join(unknown)}; expected {', '.join(keys)}")
    for key, (kind, expected) in KINDS.items():
        value = content.get(key, [kind()])
        if not isinstance(value, list) or not value or any(type(item) is not kind for item in value):
            raise ConfigError(f"{plan}: {key}: expected {expected}, got {value!r:.60}")
    runs = content.get("runs", {"": {}})
    if not isinstance(runs, dict) or not runs:
        raise ConfigError(f"{plan}: no [runs.NAME]")
    tables = {"common": content.get("common", {})} | {f"runs.{name}": run for name, run in runs.items()}
    for name, table in (tables | {f"methods.{name}": table for name, table in per_method.items()}).items():
        if not isinstance(table, dict):
            raise ConfigError(f"{plan}: {name}: expected a table of settings")


def _listed(plan: str, content: dict[str, Any], overrides: Mapping[str, Any]) -> list[Job]:
    """Return the runs that a plan lists: seeds outermost, then deals, sets and runs."""
    spec = dict[str, Any](experiment="custom", seeds=[1], deals=[None], targets=[], common={}, sets=[{}]) | content
    if spec["experiment"] not in typing.get_args(Experiment):
        raise ConfigError(f"{plan}: experiment: expected one of {', '.join(typing.get_args(Experiment))}")
    if any("seed" in table for table in (spec["common"], *spec["sets"], *spec["runs"].values())):
        raise ConfigError(f"{plan}: seed: is given by seeds = [1, 2, 3] at the top")
    unused = {name for name, value in overrides.items() if isinstance(value, Mapping)}
    runs = []
    for seed, deal, one, (name, run) in itertools.product(
        spec["seeds"], spec["deals"], spec["sets"], spec["runs"].items()
    ):
        settings = merge(spec["common"], one, {} if deal is None else {"base_classes": f"{DEAL}{deal}"}, run)
        method = str(settings.get("method", RunConfig.method))
        used = {regulariser_of(settings["sections"]), method, *settings["sections"]}
        unused -= used
        mine = {k: v for k, v in overrides.items() if not isinstance(v, Mapping) or k in used}
        config = build(RunConfig, merge(settings, mine, {"seed": seed}), f"{plan}, run {name}")
        check_sections(config)
        runs.append(Job(spec["experiment"], name, config, tuple(spec["targets"])))
    if unused:
        raise ConfigError(f"settings for {', '.join(sorted(unused))}, but no run of {plan} uses them")
    return runs


def _combined(
    plan: str, content: Mapping[str, Any], per_method: Mapping[str, Any], overrides: Mapping[str, Any]
) -> list[Job]:
    """Return the runs of a protocol: datasets outermost, then seeds, shots, methods, and without SAR before with it."""
    experiment, sar = content.get("experiment"), content.get("sar", "both")
    if experiment not in PROTOCOLS:
        raise ConfigError(f"{plan}: expected [runs.NAME] or experiment, one of {', '.join(PROTOCOLS)}")
    if sar not in ("both", "on", "off"):
        raise ConfigError(f"{plan}: sar: expected both, on or off, got {sar!r}")
    datasets, targets = _datasets(plan, experiment, content)
    common = merge(content.get("common", {}), overrides)
    backbone = str(common.get("backbone", RunConfig.backbone))
    names = chosen_methods(content.get("methods", ["all"]), backbone)
    if targets and GDA in names:
        raise ConfigError(
            "gda is fitted to the classes of one dataset, so it has no targets; leave it out of --methods"
        )
    regulariser = _check_settings(common, per_method, names)
    shots = content.get("shots", [1, 2, 4, 8, 16] if experiment == "few-shot" else [16])
    modes = {"both": ("", regulariser), "on": (regulariser,), "off": ("",)}[sar]
    root = Path(common["data_root"]) if common.get("data_root") else None
    runs = []
    for dataset, seed, count, name in itertools.product(datasets, content.get("seeds", [1, 2, 3]), shots, names):
        method, _, on = name.partition(":")
        kind = method_kind(method)
        dataset_key = locate(dataset, root)[1] or dataset  # DATA/imagenet and ImageNet are imagenet too
        published = dict(kind.published(experiment, shots=count, dataset=dataset_key))
        if rate := published.get("learning_rate"):
            published["learning_rate"] = mini.scaled_rate(backbone, rate, kind.schedule.optimiser)
        combined = {"method": method, "data": dataset, "seed": seed, "shots": count, "protocol": PROTOCOLS[experiment]}
        own = ({method: {"on": on}} if on else {}, per_method.get(name, {}))
        for mode in modes if kind.trains else ("",):
            settings = merge(published, content.get("common", {}), *own, overrides, combined, {"sar": bool(mode)})
            settings["sections"] = {key: v for key, v in settings["sections"].items() if key in (method, mode)}
            label = name + {"": "", SAR: "+sar"}.get(mode, f" with {mode}")
            runs.append(Job(experiment, label, build(RunConfig, settings, label), tuple(targets)))
    return runs


def _datasets(plan: str, experiment: str, content: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the datasets to train on, and the targets; those of the field where a plan names none."""
    transfers = experiment in ("cross-dataset", "domain-generalisation")
    datasets: Sequence[str] = content.get("datasets", ["imagenet"] if transfers else [])
    if not datasets:
        raise ConfigError(f"{plan}: which datasets? --datasets caltech101,dtd, folders of your own, or all")
    datasets = ELEVEN if list(datasets) == ["all"] else datasets
    others = {
        "cross-dataset": [name for name in ELEVEN if name not in map(find, datasets)],
        "domain-generalisation": VARIANTS,
    }
    return datasets, content.get("targets") or others.get(experiment, ())


def _check_settings(common: Mapping[str, Any], per_method: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the regulariser that settings name.

    Raises:
        ConfigError: settings of a method that does not run, or of what the plan combines itself.
    """
    for name in per_method:
        method_kind(name.partition(":")[0])  # an unknown one is an error
    regulariser = regulariser_of(merge(common, *per_method.values())["sections"])
    every = {"": (common, names)} | {f"methods.{name}: ": (merge(t), [name]) for name, t in per_method.items()}
    for where, (table, of) in every.items():
        used = {regulariser, *(name.partition(":")[0] for name in of)}
        if foreign := sorted(set(table["sections"]) - used):
            raise ConfigError(f"{where}settings for {', '.join(foreign)}, but these runs use {', '.join(sorted(used))}")
        if fixed := sorted(set(FIXED) & set(table)):
            raise ConfigError(f"{where}{', '.join(fixed)}: combined by the plan's own keys and options")
    return regulariser


def chosen_methods(names: Iterable[str], backbone: str) -> list[str]:
    """Return the methods asked for; ``all`` are those that the backbone can train, judging by its name.

    Raises:
        ConfigError: no such method.
    """
    chosen: list[str] = []
    for name in names:
        if name == "all":
            entries = methods.entries.items()
            chosen += [key for key, kind in entries if "image" not in kind.towers or backbone != mini.NAME]
        else:
            if "image" in method_kind(name.partition(":")[0]).towers and backbone == mini.NAME:
                raise ConfigError(
                    f"method {name} prompts the image tower, and that of {backbone} is no vision transformer: choose "
                    f"--backbone {mini.VIT_NAME}, ViT-B-16, …"
                )
            chosen.append(name)
    return list(dict.fromkeys(chosen))
