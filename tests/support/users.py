"""Another user of this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_NOBODY = 65_534


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Let this process read and write only what anybody may, also where the superuser runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
