"""Measurements; those that start servers do so as the tests do, with the helpers in ``tests/support``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
