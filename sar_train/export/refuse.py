"""End an export whose comparison fails, with an error that says what is beyond its bound."""

from __future__ import annotations

from sar_infer.bundle_check.finding import Check, reasons
from sar_train.errors import ExportError


def refuse(*findings: Check) -> None:
    """Stop before anything is written if a finding is beyond its bound.

    Raises:
        ExportError: one is.
    """
    if lines := reasons(findings):
        raise ExportError(f"{'; '.join(lines)}; nothing was written")
