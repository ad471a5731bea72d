"""A first look at a graph from another process: onnxruntime has been seen to crash on float16 graphs, not to refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_LOOK = """
import pathlib, sys
from sar_infer.encoders.sessions import open_session
open_session(pathlib.Path(sys.argv[1]), "cpu")
"""


def opens(path: Path) -> bool:
    """Whether onnxruntime opens a graph and lives."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    look = [sys.executable, "-c", _LOOK, str(path)]
    return subprocess.run(look, capture_output=True, env=environment, check=False).returncode == 0  # noqa: S603
