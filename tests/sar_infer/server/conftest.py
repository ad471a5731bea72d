"""Servers that tests share; a test that changes or stops one starts its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.servers import Server, serving


@pytest.fixture(scope="session")
def mini_server() -> Iterator[Server]:
    """Serve the shipped bundle without a key, in one process."""
    with serving("--workers", "0") as server:
        yield server


@pytest.fixture(scope="session")
def worker_server() -> Iterator[Server]:
    """Serve the shipped bundle from worker processes, as is the default."""
    with serving() as server:
        yield server


@pytest.fixture(params=["mini_server", "worker_server"])
def either_server(request: pytest.FixtureRequest) -> Server:
    """Return the one and the other in turn."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the shipped bundle with a key, a bank file and all doors."""
    doors = ("--doors", "custom-vision,photoprism")
    with serving("--bank", str(tmp_path_factory.mktemp("bank") / "bank.safetensors"), *doors, key="k") as server:
        yield server
