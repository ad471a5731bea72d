"""The page on extensions, followed line by line in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.readme_commands import read

ROOT = Path(__file__).parents[2]
NEEDED = ("docs", "examples", "sar_infer", "sar_train", "tests")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Folders of their own, with links to the files."""
    for name in NEEDED:
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            copy_function=os.symlink,
            ignore=shutil.ignore_patterns("__pycache__", "*.jpg"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["method", "regulariser"])
def test_followed_line_by_line_the_suite_accepts_it(kind: str, checkout: Path) -> None:
    """Its installation aside, which is the environment of this test."""
    blocks = read(ROOT / "docs" / "extend.md")
    (commands,) = [block.body for block in blocks if f"> sar_train/{kind}s/" in block.body]
    programs = f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= {"method": 15, "regulariser": 7}[kind]
    assert {"method": "none, an example", "regulariser": "coop + near"}[kind] in done.stdout
