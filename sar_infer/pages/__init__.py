"""Pages that are one file each: HTML that needs no server and no network, and that can be sent by mail.

A page NAME is ``NAME.html`` (what its body holds), ``NAME.css`` and ``NAME.js``, which draws the page's data. Before
these come ``base.css``, which the server's pages share, and ``base.js``.
"""

from __future__ import annotations

from sar_infer.pages.page import html_page, write_page
from sar_infer.pages.thumbnails import thumbnail

__all__ = ["html_page", "thumbnail", "write_page"]
