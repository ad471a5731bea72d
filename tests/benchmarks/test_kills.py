"""The commands that kill processes at random moments, with fewer kills; they do any number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.examples import NIGHTLY

ROOT = Path(__file__).parents[2]


EDIT_KILLS = ("edit_kill", 500, 900) if NIGHTLY else ("edit_kill", 100, 18)


@pytest.mark.parametrize(("command", "kills", "seconds"), [("bank_kill", 60, 20), EDIT_KILLS])
def test_kills_lose_and_break_nothing(command: str, kills: int, seconds: int) -> None:
    limits = ["--kills", str(kills), "--seconds", str(seconds), "--rows", "40", "--dim", "8"]
    result = outcome(command, *limits)
    assert result["kills"] == kills or (result["kills"] >= 5 and result["seconds"] >= seconds)
    assert (result["broken or lost"], result["faults"]) == (0, [])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_server_whose_workers_are_killed_answers_every_request_rightly() -> None:
    result = outcome("worker_kill", "--kills", "4", "--seconds", "60")
    assert 1 <= result["met a batch"] <= result["kills"] <= 4
    assert result["photos"] > result["answers"] > 4
    assert (result["broken or lost"], result["faults"]) == (0, [])


def outcome(command: str, *options: str) -> dict[str, Any]:
    """Run a command of ``benchmarks/``, which must succeed, and return what it prints last."""
    module = [sys.executable, "-W", "error", "-m", f"benchmarks.{command}"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run([*module, *options], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
