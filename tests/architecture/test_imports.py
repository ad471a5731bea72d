"""The import contracts of pyproject.toml notice what they are there to notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")


CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
}
FORBIDDEN = [
    ("torch-free", "sar_infer.encoders.encoders", "torch"),
    ("torch-free", "sar_infer.errors", "sar_train.errors"),
    ("seam", "sar_train.clip.tokens", "sar_infer.encoders.encoders"),
    ("infer-packages", "sar_infer.bank.record", "sar_infer.bundle.manifest"),
    ("train-packages", "sar_train.clip.prompts", "sar_train.methods.coop"),
]
"""Contract, and which module breaks it by importing which."""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINTER), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_every_forbidden_import_is_found(tmp_path: Path) -> None:
    for package in ("sar_infer", "sar_train"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    before = lint(tmp_path)
    assert before.returncode == 0, before.stdout
    for _, importer, imported in FORBIDDEN:
        with (tmp_path / f"{importer.replace('.', '/')}.py").open("a", encoding="utf-8") as module:
            module.write(f"def f() -> None:\n    import {imported}\n")
    with (tmp_path / "sar_infer" / "bundle" / "hub.py").open("a", encoding="utf-8") as module:
        module.write("def circle() -> None:\n    import sar_infer.bundle.bundle\n")
    after = lint(tmp_path)
    assert after.returncode == 1
    report = " ".join(after.stdout.split())
    for contract, importer, imported in FORBIDDEN:
        assert f"{CONTRACTS[contract]} BROKEN" in report
        assert f"- {importer} -> {imported} " in report
    assert f"{CONTRACTS['circles']} BROKEN" in report
    assert "No cycles are allowed in sar_infer.bundle." in report


def ignored(folder: str, names: list[str]) -> list[str]:
    """Data and caches: only modules are of interest."""
    return [n for n in names if (not n.endswith(".py") and not Path(folder, n).is_dir()) or n == "__pycache__"]
