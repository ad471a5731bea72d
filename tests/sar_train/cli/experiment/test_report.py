"""``sar-experiment report``, ``table`` and ``pack`` as people type them."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.folders import listing
from support.results import result, sample, write

from sar_train.cli.experiment import report as module


def run(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def refused(done: Result, words: str) -> None:
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    (*_, line) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert words in line
    assert done.stdout == ""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a folder with a run that has a page without figures."""
    write(tmp_path, result(protocol="few-shot", new=None, zero_shot=(50.0, None), history=[]))
    return tmp_path


def test_the_page_lies_in_the_folder_its_path_is_printed_and_the_browser_opened_when_asked(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(module.click, "launch", opened.append)
    page = results / "report" / "index.html"
    for options in ([], ["--open"]):
        done = run(module.report, results, *options)
        assert (done.exit_code, done.stdout) == (0, f"{page}\n"), done.output
        assert done.stderr.splitlines()[0] == "1 results"
    assert opened == [page.as_uri()]
    assert f"<title>Results of {results.name}</title>" in page.read_text(encoding="utf-8")
    assert f"<code>sar-experiment report {results.name}</code>" in page.read_text(encoding="utf-8")


def test_quietly_into_another_folder_with_another_title(results: Path) -> None:
    out = results / "a" / "b"
    (results / "broken.json").write_text("{")
    done = run(module.report, results, "--out", out, "--title", "Mine", "-q")
    assert done.exit_code == 0, done.output
    assert "<h1>Mine</h1>" in (out / "index.html").read_text(encoding="utf-8")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Warning: {results / 'broken.json'}: ")


def test_what_is_refused(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command in (module.report, module.table, module.pack):
        refused(run(command, tmp_path / "empty"), "no results")
        refused(run(command, tmp_path / "nowhere"), "no such folder")
    refused(run(module.report, results, "--out", results), "not a report")
    refused(run(module.table, results, "--only", "nothing"), "there are few-shot-caltech101-sar-mini")


def test_a_missing_package_is_told_in_one_line_and_tables_do_without(results: Path) -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "missing = ['jinja2', 'matplotlib', 'scipy']\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in missing: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from sar_train.cli.experiment import report\n"
        "assert CliRunner().invoke(report.table, sys.argv[1:]).exit_code == 0\n"
        "for package in missing.copy():\n"
        "    missing[:] = [package]\n"
        "    done = CliRunner().invoke(report.report, sys.argv[1:])\n"
        "    print(done.exit_code, done.stderr, end='')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(results)], capture_output=True, text=True, timeout=120)
    refusals = [
        f"2 Error: this command needs {package}: pip install 'sar-clip[experiment]'"
        for package in ("jinja2", "matplotlib", "scipy")
    ]
    assert done.stdout.splitlines() == refusals, done.stderr
    assert not (results / "report").exists()


def test_tables_in_every_format_of_loose_and_packed_results(tmp_path: Path) -> None:
    sample(tmp_path / "runs")
    forms = ("markdown", "csv", "latex", "json")
    before = {form: run(module.table, tmp_path / "runs", "--format", form).stdout for form in forms}
    assert "| CoOp | **" in before["markdown"]
    assert r"\toprule" in before["latex"]
    sections = {table["section"] for table in json.loads(before["json"])}
    assert {"base-to-new", "few-shot", "cross-dataset", "custom"} <= sections
    done = run(module.pack, tmp_path / "runs")
    archive = tmp_path / "runs" / "results.jsonl.xz"
    assert re.fullmatch(rf"{archive}: 12 runs, 12 of them added now, \d+ kB\n", done.stdout), done.output
    assert listing(tmp_path / "runs") == [archive.name]
    assert {form: run(module.table, tmp_path / "runs", "--format", form).stdout for form in forms} == before
    rows = run(module.table, tmp_path / "runs", "--format", "csv", "--only", "RELATIONS").stdout.splitlines()
    assert rows[0] == "# Relations among held-out names on caltech101, 16 shots, sar-mini"
    assert next(csv.reader(rows[1:]))[0] == "method"
