"""Committed experiments: every file can be run, and every committed result is of the settings that come with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sar_train.clip import mini
from sar_train.config.run import RunConfig, build, merge, read_toml
from sar_train.experiment.job import Job
from sar_train.experiment.plan import read_plan
from sar_train.methods.base import methods
from sar_train.regularisers.base import regularisers
from sar_train.report.results import packed_runs

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = sorted(EXPERIMENTS.glob("*.toml"))
SWEEPS = [path for path in FILES if "runs" in read_toml(path)]
SETTINGS = [path for path in FILES if not {"runs", "experiment"} & set(read_toml(path))]
COMBINED = [path for path in FILES if path not in (*SWEEPS, *SETTINGS)]
RESULTS = {
    path: run
    for path, run in packed_runs(EXPERIMENTS / "results")
    if "ruler_step" not in path.parts  # of penalties that only experiments/ruler/step.py has
}


def repeated(path: Path, folder: Path) -> Job:
    """Return the run that a result's own TOML file describes."""
    file = folder / path.with_suffix(".toml").name
    file.write_text(RESULTS[path].toml or "")
    (job,) = read_plan(str(file), {}, {})
    return job


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_can_be_run(path: Path) -> None:
    runs = read_plan(str(path), {}, {})
    assert len({run.path(None) for run in runs}) == len(runs)


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_every_file_of_settings_is_one_run(path: Path) -> None:
    config = build(RunConfig, merge(read_toml(path)), path.stem)
    config.section(config.method, methods.get(config.method).Config)
    config.section("sar", regularisers.get("sar").Config)


@pytest.mark.parametrize("path", COMBINED, ids=lambda path: path.stem)
def test_every_plan_of_a_protocol_can_be_run(path: Path) -> None:
    plain = {} if "backbone" in read_toml(path).get("common", {}) else {"backbone": mini.VIT_NAME}
    assert all(job.key(None) for job in read_plan(str(path), {"datasets": ["demo"], "seeds": [1]}, plain))


def test_nothing_else_lies_among_the_results() -> None:
    endings = {path.suffix for path in (EXPERIMENTS / "results").rglob("*") if path.is_file()}
    assert ".xz" in endings <= {".json", ".toml", ".xz"}  # loose ones of a sweep that is under way


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_every_result_is_of_its_settings(path: Path, tmp_path: Path) -> None:
    content = RESULTS[path].result
    job = repeated(path, tmp_path)
    digest = content["code"]["digest"]
    vars(job)["photos"] = content.get("photos") or {}  # as they were
    assert path.name == job.path(digest).name, "a setting has got another default: make the result anew"
    assert content["key"] == job.key(digest)
    assert (content["name"], content["protocol"], content["seed"]) == (job.name, job.experiment, job.config.seed)
    assert {*content["config"]} & {"data_root", "cache_dir", "device", "llm_url"} == set()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_result_of_a_sweep_is_in_its_file(path: Path, tmp_path: Path) -> None:
    keys = {job.key(None) for job in read_plan(str(path), {}, {})}
    for result in RESULTS:
        if result.is_relative_to(EXPERIMENTS / "results" / path.stem):
            assert repeated(result, tmp_path).key(None) in keys, f"{result} is no longer in {path.name}: delete it"
