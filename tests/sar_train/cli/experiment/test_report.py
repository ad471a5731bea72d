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


def refused(found: Result, words: str) -> None:
    assert found.exit_code == 2
    assert isinstance(found.exception, SystemExit)
    (*_, line) = found.stderr.splitlines()
    assert line.startswith("Error: ")
    assert words in line
    assert found.stdout == ""


def test_the_page_lies_in_the_folder_and_its_path_is_printed(tmp_path: Path) -> None:
    for name in ("coop", "coop+sar"):
        write(tmp_path, result(name))
    found = run(module.report, tmp_path)
    assert found.exit_code == 0, found.output
    page = tmp_path / "report" / "index.html"
    assert found.stdout.splitlines() == [str(page)]
    assert f"<title>Results of {tmp_path.name}</title>" in page.read_text(encoding="utf-8")
    assert "2 results" in found.stderr


def test_quiet(tmp_path: Path) -> None:
    write(tmp_path, result())
    found = run(module.report, tmp_path, "--quiet")
    assert (found.exit_code, found.stderr) == (0, "")


def test_another_folder_and_title(tmp_path: Path) -> None:
    write(tmp_path / "in", result())
    found = run(module.report, tmp_path / "in", "--out", tmp_path / "a" / "b", "--title", "Mine")
    assert found.exit_code == 0, found.output
    assert "<h1>Mine</h1>" in (tmp_path / "a" / "b" / "index.html").read_text(encoding="utf-8")


def test_the_browser_is_opened_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, result())
    opened: list[str] = []
    monkeypatch.setattr(module.click, "launch", opened.append)
    assert run(module.report, tmp_path, "--open").exit_code == 0
    assert opened == [(tmp_path / "report" / "index.html").as_uri()]


def test_files_that_are_no_results_are_named_in_one_line_each(tmp_path: Path) -> None:
    write(tmp_path, result())
    (tmp_path / "broken.json").write_text("{")
    found = run(module.report, tmp_path, "-q")
    assert found.exit_code == 0
    (line,) = found.stderr.splitlines()
    assert line.startswith("Warning: ")
    assert "broken.json" in line


@pytest.mark.parametrize("command", [module.report, module.table])
def test_nothing_to_report(tmp_path: Path, command: Any) -> None:
    refused(run(command, tmp_path), "no results")
    refused(run(command, tmp_path / "nowhere"), "no such folder")


def test_what_is_no_report_is_not_replaced(tmp_path: Path) -> None:
    write(tmp_path, result())
    refused(run(module.report, tmp_path, "--out", tmp_path), "not a report")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib", "scipy"])
def test_a_missing_package_is_told_in_one_line_and_tables_do_without(tmp_path: Path, package: str) -> None:
    write(tmp_path, result())
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == sys.argv[1]: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from sar_train.cli.experiment import report\n"
        "getattr(report, sys.argv[2])([sys.argv[3]])"
    )

    def fresh(command: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", program, package, command, str(tmp_path)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=120)

    refusal = fresh("report")
    assert refusal.returncode == 2
    assert refusal.stderr == f"Error: this command needs {package}: pip install 'sar-clip[experiment]'\n"
    assert not (tmp_path / "report").exists()
    assert fresh("table").returncode == 0


def test_tables_in_every_format(tmp_path: Path) -> None:
    sample(tmp_path)
    markdown = run(module.table, tmp_path)
    assert "| CoOp | **" in markdown.stdout
    assert r"\toprule" in run(module.table, tmp_path, "--format", "latex").stdout
    rows = run(module.table, tmp_path, "--format", "csv", "--only", "relations").stdout.splitlines()
    assert rows[0] == "# Relations among held-out names on caltech101, 16 shots, sar-mini"
    assert next(csv.reader(rows[1:]))[0] == "method"
    found = json.loads(run(module.table, tmp_path, "--format", "json").stdout)
    assert {"base-to-new", "few-shot", "cross-dataset", "custom"} <= {table["section"] for table in found}


def test_only_some_tables(tmp_path: Path) -> None:
    sample(tmp_path)
    assert run(module.table, tmp_path, "--only", "WHAT A RUN COSTS").stdout.startswith("**What a run costs")
    refused(run(module.table, tmp_path, "--only", "nothing"), "there are base-to-new-caltech101")


def test_packed_results_give_the_same_tables(tmp_path: Path) -> None:
    sample(tmp_path / "runs")
    forms = ("markdown", "csv", "latex", "json")
    before = [run(module.table, tmp_path / "runs", "--format", form).stdout for form in forms]
    found = run(module.pack, tmp_path / "runs")
    archive = tmp_path / "runs" / "results.jsonl.xz"
    assert re.fullmatch(rf"{archive}: 16 runs, 16 of them added now, \d+ kB\n", found.stdout), found.output
    assert listing(tmp_path / "runs") == [archive.name]
    assert [run(module.table, tmp_path / "runs", "--format", form).stdout for form in forms] == before


def test_packed_results_give_the_same_page(tmp_path: Path) -> None:
    for name in ("coop", "coop+sar"):
        write(tmp_path / "runs", result(name))
    run(module.report, tmp_path / "runs", "--out", tmp_path / "before")
    assert run(module.pack, tmp_path / "runs").exit_code == 0
    run(module.report, tmp_path / "runs", "--out", tmp_path / "after")
    page, again = ((tmp_path / name / "index.html").read_bytes() for name in ("before", "after"))
    assert page == again


def test_nothing_to_pack(tmp_path: Path) -> None:
    refused(run(module.pack, tmp_path), "no results")
    refused(run(module.pack, tmp_path / "none"), "no such folder")
