"""The class bank: names with embeddings, what is known of them, what was done; edits are pure functions."""

from sar_infer.bank.adding import add
from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.difference import Difference, diff
from sar_infer.bank.edits import amend, remove, rename
from sar_infer.bank.history import Step
from sar_infer.bank.info import ClassInfo
from sar_infer.bank.merging import merge
from sar_infer.bank.search import find, nearest
from sar_infer.bank.undo import rollback, settled

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
