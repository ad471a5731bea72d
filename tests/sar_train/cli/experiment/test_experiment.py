"""The group: every command is there, and help does not load torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.photos import write_folder

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


def test_help_of_every_command_and_a_check_of_data_load_no_torch(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"a": 20})
    script = f"""
import sys
from click.testing import CliRunner
from sar_train.cli.experiment import main
for words in (*([name, "--help"] for name in {list(COMMANDS)}), ["check-data", {str(photos)!r}]):
    assert CliRunner().invoke(main, words).exit_code == 0, words
assert not {{"torch", "open_clip", "matplotlib", "openai", "ray"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
