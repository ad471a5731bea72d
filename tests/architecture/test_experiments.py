"""Committed experiments: every file can be run, and every committed result is of the settings that stand beside it."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sar_train.config import RunConfig, build, merge
from sar_train.prompt_method import methods
from sar_train.regulariser import regularisers

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = sorted(EXPERIMENTS.rglob("*.toml"))
RESULTS = sorted(EXPERIMENTS.rglob("results/**/*.json"))


def settings(path: Path) -> dict[str, dict[str, Any]]:
    """Merged settings of each run of a file, by the name of its result."""
    spec = tomllib.loads(path.read_text())
    if "runs" not in spec:
        return {path.stem: merge(spec)}
    return {
        f"{name}-s{seed}": merge(spec.get("common", {}), run, {"seed": seed})
        for name, run in spec["runs"].items()
        for seed in spec["seeds"]
    }


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_file_can_be_run(path: Path) -> None:
    for name, merged in settings(path).items():
        config = build(RunConfig, merged, name)
        config.section(config.method, methods.get(config.method).Config)
        config.section("sar", regularisers.get("sar").Config)


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_result_is_of_the_settings_beside_it(path: Path) -> None:
    merged = settings(EXPERIMENTS / f"{path.parent.name}.toml")
    assert path.stem in merged, "a result without an experiment: delete it"
    asked = dataclasses.asdict(build(RunConfig, merged[path.stem], path.stem))
    done = json.loads(path.read_text())["config"]
    for derived in ("template", "protocol"):
        assert done[derived]
        asked.pop(derived), done.pop(derived)
    assert done.pop("schedule")
    assert done == json.loads(json.dumps(asked))
