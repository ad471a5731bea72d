from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_kills_lose_and_break_nothing() -> None:
    """Some of them; the command does any number."""
    limits = ["--kills", "40", "--seconds", "8", "--rows", "40", "--dim", "8"]
    command = [sys.executable, "-W", "error", "benchmarks/edit_kill.py", *limits]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == 40 or (result["kills"] >= 5 and result["seconds"] >= 8)
    assert (result["broken or lost"], result["faults"]) == (0, [])
