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
    from sar_infer.bank.difference import Difference, diff
    from sar_infer.bank.edits import add, amend, remove, remove_photos, rename, set_photos_only
    from sar_infer.bank.history import Step, rollback, settled
    from sar_infer.bank.info import ClassInfo
    from sar_infer.bank.merging import merge
    from sar_infer.bank.photos import PhotoSet
    from sar_infer.bank.search import find, nearest

__all__ = [
    "ClassBank",
    "ClassInfo",
    "Difference",
    "PhotoSet",
    "Step",
    "add",
    "amend",
    "diff",
    "find",
    "merge",
    "nearest",
    "remove",
    "remove_photos",
    "rename",
    "rollback",
    "set_photos_only",
    "settled",
]

_HOMES = {
    "ClassBank": "class_bank",
    "ClassInfo": "info",
    "Difference": "difference",
    "PhotoSet": "photos",
    "Step": "history",
    "add": "edits",
    "amend": "edits",
    "diff": "difference",
    "find": "search",
    "merge": "merging",
    "nearest": "search",
    "remove": "edits",
    "remove_photos": "edits",
    "rename": "edits",
    "rollback": "history",
    "set_photos_only": "edits",
    "settled": "history",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
