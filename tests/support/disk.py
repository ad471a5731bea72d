"""A disk without space."""

from __future__ import annotations

import pytest


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every flush to the disk fail from now on."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
