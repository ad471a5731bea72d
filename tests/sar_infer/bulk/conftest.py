"""A run in a working folder of its own, with the tiny bundle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> Path:
    """The working folder; the bundle is named by the environment."""
    monkeypatch.chdir(tmp_path)
    for key in [key for key in os.environ if key.startswith("SAR_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("SAR_BUNDLE", str(bundle_path))
    return tmp_path
