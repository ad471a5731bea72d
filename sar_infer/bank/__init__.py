"""The class bank: a dictionary of classes with a past, one file, and the use cases that change it.

Edits are functions that return a new bank. Nothing here knows images, encoders or bundles. The names below are imported
when they are first used, so that class names can be read without numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sar_infer.bank.class_bank import ClassBank
    from sar_infer.bank.edits import (
        add,
        add_photos,
        calibrate,
        carry,
        create,
        fit,
        forget_photos,
        learn,
        remove,
        rename,
        rollback,
        set_class,
    )
    from sar_infer.bank.entry import Entry, Images, PhotoSet
    from sar_infer.bank.learned import BankCalibration, Learn, Learned
    from sar_infer.bank.steps import Step

_EDITS = ("add", "add_photos", "calibrate", "carry", "create", "fit", "forget_photos", "learn", "remove", "rename")
_HOMES = {
    "ClassBank": "class_bank",
    **dict.fromkeys((*_EDITS, "rollback", "set_class"), "edits"),
    **dict.fromkeys(("Entry", "Images", "PhotoSet"), "entry"),
    **dict.fromkeys(("BankCalibration", "Learn", "Learned"), "learned"),
    "Step": "steps",
}
__all__ = [
    "BankCalibration",
    "ClassBank",
    "Entry",
    "Images",
    "Learn",
    "Learned",
    "PhotoSet",
    "Step",
    "add",
    "add_photos",
    "calibrate",
    "carry",
    "create",
    "fit",
    "forget_photos",
    "learn",
    "remove",
    "rename",
    "rollback",
    "set_class",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
