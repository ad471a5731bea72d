from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CODE = """
import os, sys, {module} as command
assert "numpy" not in sys.modules
try:
    command.main({arguments}, standalone_mode=False)
except Exception as error:
    print(os.environ["OPENBLAS_NUM_THREADS"], type(error).__name__)
"""
_COMMANDS = {
    "sar_infer.cli.classify": ["--bundle", "/nowhere", "/dev/null"],
    "sar_infer.cli.serve": ["--bundle", "/nowhere", "--check"],
}


@pytest.mark.parametrize("module", _COMMANDS)
@pytest.mark.parametrize(
    ("given", "wanted"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3"), ({"OMP_NUM_THREADS": "2"}, "2")]
)
def test_commands_keep_blas_to_one_thread_before_numpy_is_there(
    module: str, given: dict[str, str], wanted: str
) -> None:
    code = _CODE.format(module=module, arguments=_COMMANDS[module])
    clean = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | given, timeout=60)
    assert done.stdout.split() == [wanted, "Refusal"], done.stderr
