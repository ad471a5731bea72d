from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from sar_infer.cli import bank, bundle, classify, serve
from sar_infer.cli.options import emit
from sar_train.cli import experiment, export, train

_CODE = """
import os, sys, {module} as command
assert not {{"numpy", "PIL", "onnxruntime", "safetensors", "torch", "sar_train"}} & {{*sys.modules}}
try:
    command.main({arguments}, standalone_mode=False)
except Exception as error:
    print(os.environ["OPENBLAS_NUM_THREADS"], type(error).__name__)
"""
_MODULES = pytest.mark.parametrize(
    "module", [bank, bundle, classify, serve, train, export, experiment], ids=lambda module: module.__name__
)


@pytest.mark.parametrize(
    ("module", "arguments", "environment", "threads"),
    [
        ("classify", ["--bundle", "/nowhere", "/dev/null"], {}, "1"),
        ("serve", ["--bundle", "/nowhere", "--check"], {}, "1"),
        ("serve", ["--bundle", "/nowhere", "--check"], {"OPENBLAS_NUM_THREADS": "3"}, "3"),
        ("serve", ["--bundle", "/nowhere", "--check"], {"OMP_NUM_THREADS": "2"}, "2"),
    ],
)
def test_commands_keep_blas_to_one_thread_before_numpy_is_there(
    module: str, arguments: list[str], environment: dict[str, str], threads: str
) -> None:
    code = _CODE.format(module=f"sar_infer.cli.{module}", arguments=arguments)
    clean = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | environment)
    assert done.stdout.split() == [threads, "Refusal"], done.stderr


@_MODULES
def test_help_fits_80_columns_and_cuts_no_line(module: ModuleType) -> None:
    inner = module.main.list_commands(click.Context(module.main)) if isinstance(module.main, click.Group) else ()
    for words in ([], *([name] for name in inner), *([name, "--help-all"] for name in inner), ["--help-all"]):
        text = CliRunner().invoke(module.main, [*words, "--help"], terminal_width=80).output
        lines = [line for line in text.splitlines() if "Usage:" not in line]
        assert [line for line in lines if len(line) > 80 or line.endswith("...")] == []
    short = CliRunner().invoke(module.main, ["-h"]).output
    assert short == CliRunner().invoke(module.main, ["--help"]).output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_result_that_cannot_be_printed_is_one_line_and_one_that_nobody_reads_is_none(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        with pytest.raises(click.ClickException, match=r"stdout: cannot be written \(No space .*\); all else is done"):
            emit(form, dict, ["a line"])
    monkeypatch.setattr(sys, "stdout", None)  # closed
    emit(form, dict, ["a line"])
