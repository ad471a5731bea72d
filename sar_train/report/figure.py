"""The look of figures: a palette that the page can recolour for dark schemes, SVG for the page, and PNG files."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Collection
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from PIL import Image

INK, MUTED, GRID = "#1b2430", "#66707c", "#d9dee4"
WITHOUT, WITH, THIRD = "#0072b2", "#d55e00", "#009e73"
"""From Okabe and Ito's palette, which is distinguishable with any kind of colour vision."""
DASHED = (4, 2)
"""Dashes of lines to compare with: zero-shot, no change."""
VARIABLES = {
    INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)",
    WITHOUT: "var(--without)", WITH: "var(--with)", THIRD: "var(--third)",
}  # fmt: skip
RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 10.5,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
NOTHING = {"Creator": None, "Date": None, "Format": None, "Type": None}
"""Metadata to leave out, as it differs from day to day or contains addresses."""
LINE, NO_BREAK = 36, "\N{NO-BREAK SPACE}"
"""Characters in a line as wide as the narrowest panel."""
TIGHT: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08}


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of the report.

    Attributes:
        key: its file's name.
        section: the part of the report that it belongs to.
        title: its title.
        caption: how to read it.
        alt: a description for readers who cannot see it.
        paint: draws on an empty canvas.
        size: width and height in inches.
        folded: hidden until the reader opens it.
        beside: the key of the table that belongs to it.
        layout: matplotlib's; ``compressed`` for panels of a fixed shape.
    """

    key: str
    section: str
    title: str
    caption: str
    alt: str
    paint: Callable[[Canvas], None]
    size: tuple[float, float]
    folded: bool = False
    beside: str = ""
    layout: Literal["constrained", "compressed"] = "constrained"

    def canvas(self) -> Canvas:
        """Return the painted canvas."""
        with mpl.rc_context(RC):
            canvas = Canvas(figsize=self.size, layout=self.layout)
            FigureCanvasAgg(canvas)
            self.paint(canvas)
        return canvas

    def draw(self) -> tuple[str, bytes]:
        """Return an ``svg`` element for the page, and the same as a PNG file."""
        canvas, svg, png = self.canvas(), io.StringIO(), io.BytesIO()
        with mpl.rc_context({**RC, "svg.hashsalt": self.key}):
            canvas.savefig(svg, format="svg", metadata=NOTHING, dpi=144, **TIGHT)
            canvas.savefig(png, format="png", metadata={"Software": None}, dpi=160, facecolor="white", **TIGHT)
        return page_svg(svg.getvalue(), self.key, self.alt), _in_256_colours(png)


def wrapped(name: str) -> str:
    """Break the name of a run with many settings into lines as wide as a panel.

    No line ends at a no-break space, which becomes a plain one, so that short names stay as they are.
    """
    return textwrap.fill(name, LINE).replace(NO_BREAK, " ")


def _in_256_colours(png: io.BytesIO) -> bytes:
    """Return a PNG file with a palette: a third of the size, and no difference to be seen in a diagram."""
    small = io.BytesIO()
    with Image.open(png) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True, dpi=image.info["dpi"]
        )
    return small.getvalue()


def page_svg(text: str, key: str, alt: str) -> str:
    """Turn an SVG file into an element of a page: own identifiers, the page's colours and font, a description."""
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    text = re.sub(r"<[^>]*>", lambda tag: _page_tag(tag[0], key, used), text)  # between tags are class names
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])  # type: ignore[index]
    shape = f'style="max-width: {width:.0f}pt; min-width: min(44rem, {0.8 * width:.0f}px)"'
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" {shape} ', 1).strip()


def _page_tag(tag: str, key: str, used: Collection[str]) -> str:
    """Turn one tag of an SVG file into a tag of a page."""
    tag = re.sub(r' id="([^"]+)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in used else "", tag)
    tag = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{key}-", tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", tag)
    for colour, variable in VARIABLES.items():
        tag = re.sub(colour, variable, tag, flags=re.IGNORECASE)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", tag).replace("xlink:href=", "href=")
