"""What is not loaded is proved in fresh processes, and so is that the proof can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = dict(PROJECT["scripts"])
HEAVY = ("huggingface_hub", "onnx", "onnxruntime", "open_clip", "scipy", "timm", "torch", "torchvision")
TRAINING = ("onnx", "onnxscript", "open_clip", "sar_train", "timm", "torch", "torchvision")

RUN_COMMAND = """
import importlib, json, sys
module, function, *options = sys.argv[1:]
code = 0
for option in options or [""]:
    sys.argv[:] = ["command", option]
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as stop:
        code = code or stop.code or 0
print(json.dumps({"code": code, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
for name in sys.argv[2:]:
    sys.modules[name] = None
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, sys.argv[1] + "."):
    importlib.import_module(module.name)
print(json.dumps({"code": 0, "loaded": sorted({n.partition(".")[0] for n, m in sys.modules.items() if m})}))
"""


def fresh(program: str, *arguments: str) -> tuple[int, set[str], str]:
    """Exit code, top-level modules loaded at the end, and what was printed before, of a program in a new process."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *printed, report = done.stdout.splitlines()
    result = json.loads(report)
    return result["code"], set(result["loaded"]), "\n".join(printed)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_and_version_load_nothing_heavy(command: str) -> None:
    code, loaded, printed = fresh(RUN_COMMAND, *COMMANDS[command].split(":"), "--version", "--help")
    assert code == 0
    assert PROJECT["version"] in printed
    assert "Usage" in printed
    assert loaded.isdisjoint(HEAVY)


def test_every_module_of_the_run_time_imports_without_torch() -> None:
    _, loaded, _ = fresh(IMPORT_EVERYTHING, "sar_infer", *TRAINING, "huggingface_hub")
    assert loaded.isdisjoint({*TRAINING, "huggingface_hub"})


def test_the_proof_sees_a_module_that_is_loaded() -> None:
    assert "onnxruntime" in fresh("import onnxruntime\n" + RUN_COMMAND, "builtins", "exit")[1]


def test_the_proof_sees_an_import_of_torch() -> None:
    with pytest.raises(AssertionError, match="import of torch"):
        fresh(IMPORT_EVERYTHING, "torch", "torch")


@pytest.mark.parametrize("package", ["sar_infer", "sar_train"])
def test_onnxruntime_keeps_no_usage_data(tmp_path: Path, package: str) -> None:
    program = f"import {package}, onnxruntime"
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", program], env=env | {"HOME": str(tmp_path)}, cwd=ROOT, check=True, timeout=120
    )
    assert not list(tmp_path.rglob("*"))
