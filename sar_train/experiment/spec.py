"""Sweep files: ``seeds``, ``[common]`` settings and one ``[runs.NAME]`` table a row of the table that comes out.

::

    experiment = "base-to-new"      # which tables the results belong to; default "custom"
    seeds = [1, 2, 3]
    targets = ["pacs/sketch"]       # optional: datasets that each prompt is evaluated on beside its own

    [common]
    data = "caltech101"

    [runs."coop+sar"]
    method = "coop"
    sar.weight = 0.3

Settings are those of ``sar-train --config``.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sar_train.config.run import RunConfig, build, merge, read_toml
from sar_train.errors import ConfigError
from sar_train.experiment.job import Experiment, Job
from sar_train.training.identity import check_sections

KEYS = ("experiment", "seeds", "targets", "common", "runs")


def read_spec(path: Path, overrides: Mapping[str, Any] | None = None) -> list[Job]:
    """The runs of a sweep file, seed by seed.

    Args:
        path: the file.
        overrides: settings that win over those of the file; a method's are for its own runs.

    Raises:
        ConfigError: not TOML, unknown keys, or settings that cannot be used; all problems of one run together.
    """
    spec = read_toml(path)
    unknown = sorted(set(spec) - set(KEYS))
    if unknown or not isinstance(spec.get("runs"), dict) or not spec["runs"]:
        what = f"unknown {', '.join(unknown)}" if unknown else "no [runs.NAME]"
        raise ConfigError(f"{path}: {what}; expected {', '.join(KEYS)} (sar-experiment run --help)")
    if not isinstance(spec.get("common", {}), dict):
        raise ConfigError(f"{path}: common: expected a table of settings")
    experiment, seeds, targets = spec.get("experiment", "custom"), spec.get("seeds", [1]), spec.get("targets", [])
    if experiment not in typing.get_args(Experiment):
        raise ConfigError(f"{path}: experiment: expected one of {', '.join(typing.get_args(Experiment))}")
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
        raise ConfigError(f"{path}: seeds: expected a list of whole numbers, got {seeds!r:.60}")
    if not isinstance(targets, list) or any(type(target) is not str for target in targets):
        raise ConfigError(f"{path}: targets: expected a list of datasets, got {targets!r:.60}")
    jobs = []
    for seed in seeds:
        for name, run in spec["runs"].items():
            if not isinstance(run, dict):
                raise ConfigError(f"{path}: runs.{name}: expected a table of settings")
            settings = merge(spec.get("common", {}), run)
            own = {"sar", str(settings.get("method", RunConfig.method)), *settings["sections"]}
            wanted = {k: v for k, v in (overrides or {}).items() if not isinstance(v, Mapping) or k in own}
            config = build(RunConfig, merge(settings, wanted, {"seed": seed}), f"{path}, run {name}")
            check_sections(config)
            jobs.append(Job(experiment, name, config, tuple(targets)))
    return jobs
