from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """Collect matplotlib's figures in the order in which they are drawn, so that tests can read their artists."""
    found: list[Canvas] = []
    save = Canvas.savefig

    def savefig(canvas: Canvas, *args: Any, **options: Any) -> None:
        if canvas not in found:
            found.append(canvas)
        save(canvas, *args, **options)

    monkeypatch.setattr(Canvas, "savefig", savefig)
    return found
