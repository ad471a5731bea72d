from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image


@pytest.fixture
def pixels() -> None:
    """Draw files as they are; other tests look at artists and at the page."""


@pytest.fixture(autouse=True)
def _a_pixel_a_file(request: pytest.FixtureRequest) -> Iterator[None]:
    """Write one pixel in place of a figure's file, which takes half of the time of drawing it."""
    with nullcontext() if "pixels" in request.fixturenames else drawn():
        yield


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
    """Collect matplotlib's figures in the order in which they are drawn, so that tests can read their artists.

    Files get one pixel each.
    """
    canvases: list[Canvas] = []
    save, pixel = Canvas.savefig, io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG", dpi=(160, 160))

    def savefig(canvas: Canvas, target: Any, *, format: str, **options: Any) -> None:  # noqa: A002
        if canvas not in canvases:
            canvases.append(canvas)
        target.write(pixel.getvalue()) if format == "png" else save(canvas, target, format=format, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Canvas, "savefig", savefig)
        yield canvases
