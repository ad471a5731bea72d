"""Learn prompts for CLIP and export them as bundles; needs torch, which is imported when `train` or `export` is called.

::

    from sar_train import export, train

    run = train("photos/", out="runs/mine")
    bundle = export(run, out="bundles/mine")
"""

from __future__ import annotations

import sar_infer  # noqa: F401 - before any onnxruntime, whose usage data it turns off
import sar_train.export  # noqa: F401 - the package; imported first, so that `export` below is the function for good
from sar_train.api import ExportOptions, TrainedRun, export, preview, train
from sar_train.errors import (
    BackboneError,
    ClassNameError,
    ConfigError,
    DataError,
    ExportError,
    RunError,
    SarTrainError,
)

__all__ = [
    "BackboneError",
    "ClassNameError",
    "ConfigError",
    "DataError",
    "ExportError",
    "ExportOptions",
    "RunError",
    "SarTrainError",
    "TrainedRun",
    "export",
    "preview",
    "train",
]
