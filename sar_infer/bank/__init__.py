"""The class bank: names with their embeddings, class info and history.

Edits and searches are pure functions on a ``ClassBank``; the class head and files of class names belong here too.
Nothing here knows images, encoders or bundles. The names below are imported when they are first used, so that class
names can be read without numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sar_infer.bank.class_bank import ClassBank
    from sar_infer.bank.compare import Difference, diff, merge
    from sar_infer.bank.edits import (
        add,
        amend,
        calibrate,
        fit,
        learn,
        remove,
        remove_photos,
        rename,
        rollback,
        set_photos_only,
    )
    from sar_infer.bank.info import ClassInfo
    from sar_infer.bank.learned import Learned
    from sar_infer.bank.log import Learn, Step
    from sar_infer.bank.photos import PhotoSet
    from sar_infer.bank.rebase import rebased
    from sar_infer.bank.state import find, nearest

__all__ = [
    "ClassBank",
    "ClassInfo",
    "Difference",
    "Learn",
    "Learned",
    "PhotoSet",
    "Step",
    "add",
    "amend",
    "calibrate",
    "diff",
    "find",
    "fit",
    "learn",
    "merge",
    "nearest",
    "rebased",
    "remove",
    "remove_photos",
    "rename",
    "rollback",
    "set_photos_only",
]

_HOMES = {
    "ClassBank": "class_bank",
    "ClassInfo": "info",
    "Learned": "learned",
    "PhotoSet": "photos",
    "rebased": "rebase",
    **dict.fromkeys(("Difference", "diff", "merge"), "compare"),
    **dict.fromkeys(("add", "amend", "calibrate", "fit", "learn", "remove"), "edits"),
    **dict.fromkeys(("remove_photos", "rename", "rollback", "set_photos_only"), "edits"),
    **dict.fromkeys(("Learn", "Step"), "log"),
    **dict.fromkeys(("find", "nearest"), "state"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
