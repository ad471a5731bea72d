"""One self-contained HTML file from a page's template and its data."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from sar_infer.errors import WriteError, one_line, reason_of
from sar_infer.storage.files import write_atomically

_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="sar-clip">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<noscript><p class="notice bad">A script draws this page: open it in a browser that runs scripts.</p></noscript>
{body}
<script type="application/json" id="data">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""
_SHARED = dict.fromkeys(("compare", "evaluation"), ("base", "charts"))
"""Files that come before a page's own; ``base`` of all others."""
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})


def html_page(name: str, title: str, data: Any, style: str | None = None) -> str:
    """Return a page that holds all it needs: style, script, and data with pictures as data URIs.

    Data are untrusted, since names of classes and files are: they are JSON in ASCII without ``<``, ``>`` and ``&``, so
    that no text in them ends the element that holds them, and scripts show them only as text. The page's own content
    security policy allows its style and its script by their digests, pictures in data URIs, and nothing else.

    Args:
        name: The template's.
        title: The title in the browser.
        data: What ``json`` can write, without NaN and infinity; the script finds it as ``data``.
        style: The template whose style it has; None is its own.

    Raises:
        ValueError: There is a number that JSON does not have.
    """
    folder = resources.files("sar_infer.evaluation")
    body = (folder / f"{name}.html").read_text("utf-8")
    style, script = (
        "\n".join((folder / f"{stem}.{kind}").read_text("utf-8") for stem in (*_SHARED.get(own, ("base",)), own))
        for kind, own in (("css", style or name), ("js", name))
    )
    digests = [
        f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}" for text in (style, script)
    ]
    policy = (
        f"default-src 'none'; style-src '{digests[0]}'; script-src '{digests[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return _SHELL.format(
        policy=policy,
        title=html.escape(one_line(title)),
        style=style,
        body=body,
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).translate(_ESCAPES),
        script=script,
    )


def write_page(path: Path, name: str, title: str, data: Mapping[str, Any], style: str | None = None) -> None:
    """Write the file of `html_page`, whole or not at all; its data have the title.

    Args:
        path: The file; one that is already there is replaced.
        name: The template's.
        title: The title in the browser.
        data: See `html_page`.
        style: See `html_page`.

    Raises:
        WriteError: The file cannot be written.
    """
    content = html_page(name, title, {"title": title, **data}, style).encode()
    try:
        write_atomically(path, [content])
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({reason_of(error)}); free space, or name another file") from None
