"""Classify images with an exported SAR-CLIP bundle; needs numpy, Pillow and onnxruntime, never torch.

::

    from sar_infer import Classifier

    classifier = Classifier.open()
    for result in classifier.classify(["cat.jpg", "cup.png"], classes=["espresso", "tabby cat"]):
        print(result.image, result.predictions[0].label)

The names below are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sar_infer.bank import ClassBank
    from sar_infer.bundle.bundle import Bundle, default_bundle, open_bundle
    from sar_infer.classifier import Classifier
    from sar_infer.client import Client
    from sar_infer.errors import (
        BankError,
        BundleError,
        ClassFileError,
        ClassNameError,
        DeviceError,
        ImageError,
        InputError,
        SarInferError,
        SchemaError,
        ServerError,
    )
    from sar_infer.evaluation.evaluation import Evaluation
    from sar_infer.results import DecisionOptions, Explanation, ImageResult, Prediction

__version__ = "0.1.0"

# Without this, onnxruntime gives the user a device id on disk and sends usage data to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "BankError",
    "Bundle",
    "BundleError",
    "ClassBank",
    "ClassFileError",
    "ClassNameError",
    "Classifier",
    "Client",
    "DecisionOptions",
    "DeviceError",
    "Evaluation",
    "Explanation",
    "ImageError",
    "ImageResult",
    "InputError",
    "Prediction",
    "SarInferError",
    "SchemaError",
    "ServerError",
    "__version__",
    "default_bundle",
    "open_bundle",
]

_HOMES = {
    "Bundle": "bundle.bundle",
    "ClassBank": "bank",
    "Classifier": "classifier",
    "Client": "client",
    "Evaluation": "evaluation",
    "Explanation": "results",
    "ImageResult": "results",
    "DecisionOptions": "results",
    "Prediction": "results",
    "default_bundle": "bundle.bundle",
    "open_bundle": "bundle.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
