"""Sweep files: what they say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sar_train.errors import ConfigError
from sar_train.experiment.spec import read_spec


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


def test_runs_come_seed_by_seed_with_common_settings(tmp_path: Path) -> None:
    text = """
        seeds = [2, 1]
        [common]
        data = "demo"
        sar.tau = 0.2
        [runs."no sar"]
        sar = false
        [runs.words]
        novel = "words"
        sar.weight = 2.0
    """
    jobs = read_spec(write(tmp_path, text), {"epochs": 3})
    assert [(job.name, job.config.seed) for job in jobs] == [("no sar", 2), ("words", 2), ("no sar", 1), ("words", 1)]
    assert jobs[1].config.sections["sar"] == {"tau": 0.2, "weight": 2.0}
    assert not jobs[0].config.sar
    assert {job.config.epochs for job in jobs} == {3}
    assert {job.experiment for job in jobs} == {"custom"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = [1]", r"no \[runs.NAME\]"),
        ("seed = 1\n[runs.a]\ndata = 'demo'", "unknown seed"),
        ("runs = 3", "no .runs.NAME"),
        ("seeds = [1.5]\n[runs.a]\ndata = 'demo'", "seeds: expected a list of whole numbers"),
        ("seeds = []\n[runs.a]\ndata = 'demo'", "seeds: expected"),
        ("experiment = 'b2n'\n[runs.a]\ndata = 'demo'", "experiment: expected one of base-to-new"),
        ("targets = 'x'\n[runs.a]\ndata = 'demo'", "targets: expected a list"),
        ("[runs]\na = 1", "runs.a: expected a table"),
        ("common = 3\n[runs.a]\ndata = 'demo'", "common: expected a table"),
        ("[runs.a]\ndata = 'demo'\nshot = 3", "run a: unknown setting 'shot', did you mean 'shots'"),
        ("[runs.a", "cannot be read as TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_spec(write(tmp_path, text))
