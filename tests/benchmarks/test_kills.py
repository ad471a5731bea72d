"""The command that kills processes at random moments, with fewer kills; it does any number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.examples import NIGHTLY

ROOT = Path(__file__).parents[2]
KILLS, SECONDS = (500, 900) if NIGHTLY else (100, 18)


def test_kills_lose_and_break_nothing() -> None:
    command = [sys.executable, "-W", "error", "-m", "benchmarks.bank_kill", "--rows", "40", "--dim", "8"]
    limits = ["--kills", str(KILLS), "--seconds", str(SECONDS)]
    done = subprocess.run([*command, *limits], cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == KILLS or (result["kills"] >= 5 and result["seconds"] >= SECONDS)
    assert (result["broken or lost"], result["faults"]) == (0, [])
