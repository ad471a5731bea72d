"""What lies in a folder."""

from __future__ import annotations

from pathlib import Path


def listing(folder: Path) -> list[str]:
    """Names of its entries, hidden ones too, sorted."""
    return sorted(path.name for path in folder.iterdir())
