from __future__ import annotations

import os
import re
import subprocess
import sys
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from sar_infer.cli import bank, bundle, classify, serve
from sar_infer.cli.options import GroupedCommand
from sar_train.cli import experiment, export, train

_CODE = """
import os, sys, {module} as command
assert "numpy" not in sys.modules
try:
    command.main({arguments}, standalone_mode=False)
except Exception as error:
    print(os.environ["OPENBLAS_NUM_THREADS"], type(error).__name__)
"""
_COMMANDS = {
    "sar_infer.cli.classify": ["--bundle", "/nowhere", "/dev/null"],
    "sar_infer.cli.serve": ["--bundle", "/nowhere", "--check"],
}


@pytest.mark.parametrize("module", _COMMANDS)
@pytest.mark.parametrize(
    ("given", "wanted"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3"), ({"OMP_NUM_THREADS": "2"}, "2")]
)
def test_commands_keep_blas_to_one_thread_before_numpy_is_there(
    module: str, given: dict[str, str], wanted: str
) -> None:
    code = _CODE.format(module=module, arguments=_COMMANDS[module])
    clean = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | given, timeout=60)
    assert done.stdout.split() == [wanted, "Refusal"], done.stderr


@pytest.mark.parametrize(
    "module", [bank, bundle, classify, serve, train, export, experiment], ids=lambda module: module.__name__
)
def test_help_is_short_for_help_and_cuts_no_line(module: ModuleType) -> None:
    text = CliRunner().invoke(module.main, ["-h"], terminal_width=80).output
    assert text == CliRunner().invoke(module.main, ["--help"], terminal_width=80).output
    assert "-h, --help" in text
    assert [line for line in text.splitlines() if line.endswith("...") and "Usage:" not in line] == []


@pytest.mark.parametrize(
    "module", [bank, bundle, classify, serve, train, export, experiment], ids=lambda module: module.__name__
)
def test_help_fits_80_columns(module: ModuleType) -> None:
    inner = module.main.list_commands(click.Context(module.main)) if isinstance(module.main, click.Group) else ()
    for words in ([], *([name] for name in inner)):
        text = CliRunner().invoke(module.main, [*words, "--help"], terminal_width=80).output
        assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    "command", [classify.main, serve.main, train.main], ids=["sar-classify", "sar-serve", "sar-train"]
)
def test_help_shows_each_option_once_under_one_of_the_headings(command: GroupedCommand) -> None:
    text = CliRunner().invoke(command, ["--help"], terminal_width=80).output
    shown = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    assert sorted(shown) == sorted(["--help", *(next(o for o in p.opts if o.startswith("--")) for p in options)])
    assert re.findall(r"^([A-Z][a-z ]+):$", text.partition("Examples:")[0], re.MULTILINE) == [*command.groups]
    grouped = [name for names in command.groups.values() for name in names]
    assert sorted(grouped) == sorted({p.name for p in options} - {"version"})
    of_options = text[text.index("\nOptions:") :].partition("Examples:")[0]
    assert re.findall(r"^  [^ -].*", of_options, re.MULTILINE) == []  # arguments stand in the first line
