"""The commands that kill processes at random moments, with fewer kills; they do any number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.examples import NIGHTLY

ROOT = Path(__file__).parents[2]


BANK_KILLS = ("bank_kill", 60, 20) if NIGHTLY else ("bank_kill", 10, 10)
EDIT_KILLS = ("edit_kill", 500, 900) if NIGHTLY else ("edit_kill", 30, 18)


@pytest.mark.parametrize(("command", "kills", "seconds"), [BANK_KILLS, EDIT_KILLS])
def test_kills_lose_and_break_nothing(command: str, kills: int, seconds: int) -> None:
    limits = ["--kills", str(kills), "--seconds", str(seconds), "--rows", "40", "--dim", "8"]
    result = outcome(command, *limits)
    assert result["kills"] == kills or (result["kills"] >= 5 and result["seconds"] >= seconds)
    assert (result["broken or lost"], result["faults"]) == (0, [])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_server_whose_workers_are_killed_answers_every_request_rightly() -> None:
    result = outcome("worker_kill", "--kills", "2", "--seconds", "60")
    assert 1 <= result["met a batch"] <= result["kills"] <= 2
    assert result["photos"] > result["answers"] > 4
    assert (result["broken or lost"], result["faults"]) == (0, [])


def outcome(command: str, *options: str) -> dict[str, Any]:
    """Run a command of ``benchmarks/``, which must succeed, and return what it prints last."""
    module = [sys.executable, "-W", "error", "-m", f"benchmarks.{command}"]
    done = subprocess.run([*module, *options], cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
