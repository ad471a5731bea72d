"""The class bank: names with their embeddings, class info and history.

Edits and searches are pure functions on a ``ClassBank``; the class head and files of class names belong here too.
Nothing here knows images, encoders or bundles.
"""

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.difference import Difference, diff
from sar_infer.bank.edits import add, amend, remove, rename
from sar_infer.bank.history import Step, rollback, settled
from sar_infer.bank.info import ClassInfo
from sar_infer.bank.merging import merge
from sar_infer.bank.search import find, nearest

__all__ = [
    "ClassBank",
    "ClassInfo",
    "Difference",
    "Step",
    "add",
    "amend",
    "diff",
    "find",
    "merge",
    "nearest",
    "remove",
    "rename",
    "rollback",
    "settled",
]
