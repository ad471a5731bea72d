"""Servers in this process, one of each for a file; a test that needs another starts its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.servers import Local, local_server

from sar_infer.server.settings import Limits, Settings

KEY = {"Authorization": "Bearer k"}


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Local]:
    """Serve the tiny bundle without a key, with limits that tests can reach."""
    limits = Limits(images=3, classes=5, pixels=1_000_000)
    with local_server(Settings(bundle=bundle_path, device="cpu", threads=1, limits=limits)) as local:
        yield local


@pytest.fixture(scope="module")
def bank_server(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Serve the tiny bundle with a key and a bank file."""
    file = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    with local_server(Settings(bundle=bundle_path, bank=file, key="k", device="cpu", threads=1)) as local:
        yield local


@pytest.fixture
def client(bank_server: Local) -> Iterator[httpx2.Client]:
    """Return a client with the key; what a test changes in the bank is taken back."""
    with httpx2.Client(base_url=bank_server.url, headers=KEY, timeout=30) as client:
        yield client
        client.post("/v1/bank/rollback", json={"to": 0})
