"""The one way in which an export ends on a comparison: an error that says what is beyond its bound."""

from __future__ import annotations

from sar_infer.verify.finding import Check, reasons
from sar_train.errors import ExportError


def refuse(*findings: Check) -> None:
    """Do not let anything be written of which a finding moved beyond its bound.

    Raises:
        ExportError: one did.
    """
    if lines := reasons(findings):
        raise ExportError(f"{'; '.join(lines)}; nothing was written")
