"""Figures: for the page and as files, the same from the same input."""

from __future__ import annotations

import html
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from sar_train.report.figure import INK, WITHOUT, Figure, draw

pytestmark = pytest.mark.usefixtures("pixels")
PLANNED = Figure("some-key", "s", "title", "caption", 'alt with "quotes" & <signs>')


def paint(canvas: Canvas) -> None:
    axes = canvas.subplots()
    axes.plot([0, 1, 2], [1, 3, 2], "o", color=WITHOUT)
    axes.imshow(np.eye(3))
    axes.set_title("R&D <b> $5_x^2$ 50% __")


def test_it_is_the_same_every_time() -> None:
    first, second = (draw(PLANNED, paint, (3, 2)) for _ in range(2))
    assert first.svg == second.svg
    assert first.png == second.png


def test_text_is_text_as_it_was_written() -> None:
    svg = draw(PLANNED, paint, (3, 2)).svg
    assert "R&amp;D &lt;b&gt; $5_x^2$ 50% __" in svg
    assert 'aria-label="alt with &quot;quotes&quot; &amp; &lt;signs&gt;"' in svg


@pytest.mark.parametrize(
    "name", ['a id="x" b', "#0072b2", "url(#p)", 'href="#q"', "font-family: Arial", ' xmlns="z"', "xlink:href=1"]
)
def test_text_that_looks_like_markup_stays_as_it_was_written(name: str) -> None:
    svg = draw(PLANNED, lambda canvas: canvas.subplots().set_title(f"<{name}>") and None, (3, 2)).svg
    assert f"<{name}>" in [html.unescape(found) for found in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def test_it_asks_for_nothing_and_shares_no_identifier() -> None:
    svg = draw(PLANNED, paint, (3, 2)).svg
    assert "http" not in svg
    assert not re.search(r"<(metadata|style|script|!DOCTYPE)", svg)
    identifiers = re.findall(r' id="([^"]+)"', svg)
    assert identifiers
    assert all(found.startswith("some-key-") for found in identifiers)
    used = re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)
    assert set(used) == set(identifiers)


def test_colours_are_the_pages() -> None:
    svg = draw(PLANNED, paint, (3, 2)).svg.lower()
    assert "var(--without)" in svg
    assert "var(--font)" in svg
    assert WITHOUT not in svg
    assert INK not in svg


def test_the_file_is_a_image_on_white() -> None:
    image = Image.open(io.BytesIO(draw(PLANNED, paint, (3, 2)).png)).convert("RGB")
    assert image.width > 300
    assert Image.open(io.BytesIO(draw(PLANNED, paint, (3, 2)).png)).info["dpi"] == pytest.approx((160, 160), abs=0.1)
    assert image.getpixel((1, 1)) == (255, 255, 255)
