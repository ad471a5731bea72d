from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas


@pytest.fixture
def canvases() -> Iterator[list[Canvas]]:
    with drawn() as found:
        yield found


@pytest.fixture(scope="module")
def drawing() -> Any:
    """Give a context that collects matplotlib's figures, to a fixture that draws for several tests."""
    return drawn


@contextmanager
def drawn() -> Iterator[list[Canvas]]:
    """Collect matplotlib's figures in the order in which they are drawn, so that tests can read their artists."""
    found: list[Canvas] = []
    save = Canvas.savefig

    def savefig(canvas: Canvas, *args: Any, **options: Any) -> None:
        if canvas not in found:
            found.append(canvas)
        save(canvas, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Canvas, "savefig", savefig)
        yield found
