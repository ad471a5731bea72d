"""The listing of a dry run, and the tables that close a sweep."""

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


def test_failures_go_to_stderr(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report(tmp_path, [], [], ["demo coop-s1: no room"], "json", lambda text: None)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["failed"] == ["demo coop-s1: no room"]
    assert shown.err == "Failed: demo coop-s1: no room\n"


def test_the_closing_tables_are_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("dept:kgcoop", "dept:kgcoop+sar"):
        write(tmp_path, result(name, open_=(70.0, 40.0)))
    lines: list[str] = []
    report(tmp_path, [], [tmp_path / "x.json"], [], "table", lines.append)
    shown = capsys.readouterr().out.splitlines()
    row = next(line for line in shown if line.startswith("DePT on KgCoOp"))
    assert row.split()[:8] == ["DePT", "on", "KgCoOp", "*80.0", "*60.0", "*68.6", "*50.9", "1"]
    assert max(map(len, shown)) <= 100
    assert lines == [f"1 results in {tmp_path}; next: sar-experiment report {tmp_path}"]
