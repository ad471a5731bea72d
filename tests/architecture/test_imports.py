"""The import contracts of pyproject.toml notice what they are there to notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    command = [str(LINTER), "--no-logo", "--no-cache", "--contract", contract]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [
        ("torch-free", "sar_infer/encoders/encoders.py", "def f() -> None:\n    import torch\n"),
        ("torch-free", "sar_infer/errors.py", "from sar_train import errors\n"),
        ("seam", "sar_train/clip/tokens.py", "from sar_infer.encoders import encoders\n"),
        ("infer-rooms", "sar_infer/bank/record.py", "from sar_infer.artefact import manifest\n"),
        ("train-rooms", "sar_train/clip/prompts.py", "import sar_train.methods.coop\n"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, contract: str, file: str, line: str) -> None:
    for package in ("sar_infer", "sar_train"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    before = lint(tmp_path, contract)
    assert before.returncode == 0, before.stdout
    with (tmp_path / file).open("a", encoding="utf-8") as module:
        module.write(line)
    after = lint(tmp_path, contract)
    assert after.returncode == 1
    assert file.removesuffix(".py").replace("/", ".") in after.stdout


def ignored(folder: str, names: list[str]) -> list[str]:
    """Data and caches: only modules are of interest."""
    return [n for n in names if (not n.endswith(".py") and not Path(folder, n).is_dir()) or n == "__pycache__"]
