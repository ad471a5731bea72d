"""What a training command prints once the runs are done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.jobs import job
from support.results import result, write

from sar_train.cli.experiment.sweeping import listing, report
from sar_train.config.run import RunConfig


def test_a_listing_says_which_runs_are_done() -> None:
    jobs = [job(RunConfig("demo", seed=seed)) for seed in (1, 2)]
    lines = listing(jobs, jobs[1:], as_json=False).splitlines()
    assert lines[0].split() == ["done", "demo", "coop+sar-16shots-s1"]
    assert lines[1].split() == ["to", "do", "demo", "coop+sar-16shots-s2"]
    assert lines[2] == "2 runs, 1 to do"
    assert [row["done"] for row in json.loads(listing(jobs, jobs[1:], as_json=True))] == [True, False]


def test_a_long_listing_counts_the_runs_of_each_dataset() -> None:
    jobs = [job(RunConfig(data, seed=seed)) for data in ("demo", "dtd") for seed in range(26)]
    lines = listing(jobs, jobs[3:], as_json=False).splitlines()
    assert lines == ["demo  23 to do, 3 done", "dtd  26 to do, 0 done", "52 runs, 49 to do"]
    assert len(json.loads(listing(jobs, jobs, as_json=True))) == 52


def test_failures_go_to_stderr(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report(tmp_path, [], [], ["demo coop-s1: no room"], "json", lambda text: None)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["failed"] == ["demo coop-s1: no room"]
    assert shown.err == "Failed: demo coop-s1: no room\n"


def test_the_closing_tables_fit_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for seed in (1, 2):
        for name in ("dept:kgcoop", "dept:kgcoop+sar"):
            write(tmp_path, result(name, seed=seed, open_=(70.0, 40.0), base=80.0 + seed))
        for weight in (0.1, 0.3):
            settings = {"weight": weight, "novel_count": seed, "template": "a photo of a {}, a type of texture."}
            write(tmp_path / "sweep", result(f"w{weight}+sar", seed=seed, protocol="custom", settings=settings))
    report(tmp_path, [], [tmp_path / "x.json"], [], "table", lambda text: None)
    lines = capsys.readouterr().out.splitlines()
    assert 60 < max(map(len, lines)) <= 100
    row = next(line for line in lines if line.startswith("DePT on KgCoOp"))
    assert row.split() == [
        "DePT",
        "on",
        "KgCoOp",
        "*81.5",
        "±",
        "0.7",
        "*60.0",
        "±",
        "0.0",
        "*69.1",
        "*50.9",
        "1,",
        "2",
    ]
