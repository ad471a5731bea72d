"""A server in this process that all tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers import Local, local_server

from sar_infer.server.settings import Limits, Settings


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Local]:
    """Serve the tiny bundle without a key, with limits that tests can reach."""
    limits = Limits(images=3, classes=5, pixels=1_000_000)
    with local_server(Settings(bundle=bundle_path, device="cpu", threads=1, limits=limits)) as local:
        yield local
