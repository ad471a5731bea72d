"""How many examples a property is tried on: few by default, all of them at night."""

from __future__ import annotations

import os

NIGHTLY = os.environ.get("SAR_NIGHTLY") == "1"


def examples(number: int) -> int:
    """Return the number of a property's examples: all in `make check-nightly`, else a fifth, 20 at least."""
    return number if NIGHTLY else min(number, max(20, number // 5))
