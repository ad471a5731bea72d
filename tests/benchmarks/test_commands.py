"""The commands of ``benchmarks/`` still start what they measure, and ``make bench`` runs those that its page lists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("command", "option"), [("blas_threads", ["--photos"]), ("cold_start", [])])
def test_sar_classify_is_measured_as_a_process(command: str, option: list[str], tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "grey.png"
    photo.parent.mkdir()
    Image.fromarray(np.full((32, 32, 3), 128, np.uint8)).save(photo)
    given = [*option, str(photo.parent if option else photo), "--runs", "1"]
    stubs = tmp_path / "stubs"  # of what sar-classify is compared with
    stubs.mkdir()
    for slow in ("torch", "open_clip"):
        (stubs / f"{slow}.py").touch()
    done = subprocess.run(
        [sys.executable, f"benchmarks/{command}.py", *given],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(stubs)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


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
