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

_WITH_CHARTS = ("compare", "evaluation", "several")
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})


def write_page(path: Path, name: str, title: str, data: Mapping[str, Any]) -> None:
    """Write a page that holds all it needs, whole or not at all: style, script, and data with pictures as data URIs.

    Data are untrusted, since names of classes and files are: they are JSON in ASCII without ``<``, ``>`` and ``&``, so
    that no text in them ends the element that holds them, and scripts show them only as text. The page's own content
    security policy allows its style and its script by their digests, pictures in data URIs, and nothing else.

    Args:
        path: The file; one that is already there is replaced.
        name: The template's.
        title: The title, in the browser and above the page.
        data: What ``json`` can write, without NaN and infinity; the script finds it as ``data``, with the title.

    Raises:
        ValueError: There is a number that JSON does not have.
        WriteError: The file cannot be written.
    """
    folder, stems = resources.files("sar_infer.evaluation"), ["base", *["charts"] * (name in _WITH_CHARTS), name]
    style, script = (
        "\n".join(file.read_text("utf-8") for stem in stems if (file := folder / f"{stem}.{kind}").is_file())
        for kind in ("css", "js")
    )
    digests = [
        f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}" for text in (style, script)
    ]
    page = (folder / "shell.html").read_text("utf-8")
    page = page.format(
        policy=(
            f"default-src 'none'; style-src '{digests[0]}'; script-src '{digests[1]}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
        title=html.escape(one_line(title)),
        style=style,
        body=(folder / f"{name}.html").read_text("utf-8"),
        data=json.dumps({"title": title, **data}, allow_nan=False, separators=(",", ":")).translate(_ESCAPES),
        script=script,
    )
    try:
        write_atomically(path, [page.encode()])
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({reason_of(error)}); free space, or name another file") from None
