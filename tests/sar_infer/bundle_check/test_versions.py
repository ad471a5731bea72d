from __future__ import annotations

import platform

import numpy as np
import onnxruntime

from sar_infer.bundle_check.bundle import versions
from sar_infer.bundle_check.finding import Check


def test_what_changed_and_how_much_did_not() -> None:
    then = {
        "python": platform.python_version(),
        "numpy": "0.1",
        "onnxruntime": onnxruntime.__version__,  # its wheel for GPUs has another name
        "no-such-package": "1.0",
    }
    assert list(versions(then)) == [
        Check("version of numpy", "0.1", np.__version__, "changed"),
        Check("version of no-such-package", "1.0", "not installed", "changed"),
        Check("versions that are the same", None, "2 of 4", "noted"),
    ]
