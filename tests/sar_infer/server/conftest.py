"""Servers that tests share; a test that changes or stops one starts its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.servers import Server, serving


@pytest.fixture(scope="session")
def mini_server() -> Iterator[Server]:
    """Serve the shipped bundle without a key."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the shipped bundle with a key and a folder for classes."""
    with serving("--state", str(tmp_path_factory.mktemp("state")), key="a key for tests") as server:
        yield server
