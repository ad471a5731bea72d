"""One thing that a check of data has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: ``error`` where the data cannot be used as it is, ``warning`` where results suffer or cannot be
            compared, ``ok`` for what is only worth knowing.
        dataset: which.
        what: one line.
        mend: what to do about it; may be empty.
    """

    severity: Literal["ok", "warning", "error"]
    dataset: str
    what: str
    mend: str = ""


def from_error(dataset: str, error: Exception) -> Finding:
    """An error's message as a finding; what stands after its last semicolon says how to mend it."""
    what, _, mend = " ".join(str(error).split()).rpartition("; ")
    return Finding("error", dataset, what, mend) if what else Finding("error", dataset, mend)
