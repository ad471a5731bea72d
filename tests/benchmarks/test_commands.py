"""The tables of ``benchmarks/`` are those of its figures, and ``make bench`` runs the commands that its page lists."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import encoders

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["throughput", "serving"])
def test_the_committed_tables_are_those_of_the_committed_figures(name: str) -> None:
    table = importlib.import_module(f"benchmarks.{name}.table")
    results = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))
    page = (ROOT / "benchmarks" / "results" / f"{name}.md").read_text("utf-8")
    assert figures_of(table.markdown(results)) <= figures_of(page)
    assert len(figures_of(page)) > 20


def test_figures_of_encoders_get_into_the_page() -> None:
    figures = {"images fp32 MiB": 335.2, "names MiB": 242.1, "fp32 ms": 61.25, "INT8 ms": 22.0}
    rows = [{"model": model} | figures for model in set(encoders.LABELS.values())]
    filled = encoders.fill(encoders.PAGE.read_text("utf-8"), rows)
    assert filled.count(" | 577 | 61 | 22 | ") == len(encoders.LABELS) == 12


def figures_of(page: str) -> set[str]:
    """Return the rows of a page's tables."""
    return {line for line in page.splitlines() if line.startswith("| ") and "---" not in line}


def test_make_bench_runs_the_commands_of_the_page_and_nothing_else() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "--silent", "bench", "VENV_READY=1", "PY=echo"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "benchmarks" / "README.md").read_text()
    assert commands(shown, r"^") == commands(page, r"^\| `python ")


def commands(text: str, before: str) -> list[str]:
    """``benchmarks/bulk.py`` and ``-m benchmarks.bulk`` are the same one."""
    return sorted(re.findall(before + r"(?:-m )?benchmarks[/.](\w+)", text, re.MULTILINE))
