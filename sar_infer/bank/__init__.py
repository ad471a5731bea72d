"""The class bank: a dictionary of classes with a past, one file, and the use cases that change it.

Edits are functions that return a new bank. Nothing here knows images, encoders or bundles.
"""

from sar_infer.bank.class_bank import ClassBank
from sar_infer.bank.edits import (
    add,
    add_photos,
    calibrate,
    carry,
    fit,
    forget_photos,
    learn,
    move_photos,
    put_classes,
    remove,
    rename,
    rollback,
    set_class,
    set_unknown_threshold,
)
from sar_infer.bank.entry import Entry
from sar_infer.bank.learned import BankCalibration, Learned
from sar_infer.bank.photos import Images, PhotoSet
from sar_infer.bank.steps import Step

__all__ = ["BankCalibration", "ClassBank", "Entry", "Images", "Learned", "PhotoSet", "Step"]
__all__ += ["add", "add_photos", "calibrate", "carry", "fit", "forget_photos", "learn", "move_photos"]
__all__ += ["put_classes", "remove", "rename", "rollback", "set_class", "set_unknown_threshold"]
