"""The commands that kill a process while it writes a bank, with fewer kills; they do any number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("command", "kills", "seconds"), [("bank_kill", 200, 60), ("edit_kill", 40, 8)])
def test_kills_lose_and_break_nothing(command: str, kills: int, seconds: int) -> None:
    limits = ["--kills", str(kills), "--seconds", str(seconds), "--rows", "40", "--dim", "8"]
    module = [sys.executable, "-W", "error", "-m", f"benchmarks.{command}"]
    done = subprocess.run([*module, *limits], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == kills or (result["kills"] >= 5 and result["seconds"] >= seconds)
    assert (result["broken or lost"], result["faults"]) == (0, [])
