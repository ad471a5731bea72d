"""A disk without space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every flush to the disk fail from now on."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Have the kernel refuse more bytes in any file, as on a disk that fills up; what came before is written."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
