"""The group: every command is there, and help does not load torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from sar_train.cli.experiment import COMMANDS, main


def test_help_lists_every_command() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    assert all(name in done.output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_environment_twins(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, done.output
    options = [line for line in done.output.splitlines() if line.startswith("  --") and "--help" not in line]
    assert "SAR_" in done.output or not options


def test_an_unknown_command_exits_2() -> None:
    done = CliRunner().invoke(main, ["base2new"])
    assert done.exit_code == 2
    assert "No such command" in done.output


def test_help_of_every_command_loads_no_torch() -> None:
    script = f"""
import sys
from click.testing import CliRunner
from sar_train.cli.experiment import main
for name in {list(COMMANDS)}:
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0, name
assert not {{"torch", "open_clip", "matplotlib", "openai", "ray"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
