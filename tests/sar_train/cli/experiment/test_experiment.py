"""The group: every command is there, and help does not load torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from sar_train.cli.experiment import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_environment_twins(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0, done.output
    options = [line for line in done.output.splitlines() if line.startswith("  --") and "--help" not in line]
    assert "SAR_" in done.output or not options


def test_the_group_lists_every_command_and_refuses_others() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(name in shown for name in COMMANDS)
    refusal = CliRunner().invoke(main, ["base2new"])
    assert refusal.exit_code == 2
    assert "No such command" in refusal.output


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
