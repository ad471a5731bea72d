"""The fields of ``manifest.json`` as Markdown, from the dataclasses of `sar_infer.bundle.manifest`.

Descriptions are the docstrings: those of a class, and of its fields where it has an "Attributes:" section.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from sar_infer.bundle.manifest import Manifest

SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", Any: "any"}
_ATTRIBUTES = "\nAttributes:\n"
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n     .*)*)", re.MULTILINE)


def page(_: str = "") -> str:
    """Return a section for the manifest and for each object in it, with a table of its fields."""
    sections: dict[str, str] = {}
    _add_section(Manifest, sections)
    return "\n\n".join([sections.pop(Manifest.__name__), *(sections[name] for name in sorted(sections))])


def _add_section(kind: Any, sections: dict[str, str]) -> None:
    """Add heading, docstring and table of a dataclass, then those of the dataclasses in its fields."""
    summary, notes = _docstring(kind)
    hints = typing.get_type_hints(kind)
    rows = [["field", "type", "", ""], ["---"] * 4]
    for field in dataclasses.fields(kind):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        needed = "optional" if has_default and field.name != "digest" else "required"  # the reader compares the digest
        rows.append([f"`{field.name}`", _shown(hints[field.name], sections), needed, notes.get(field.name, "")])
    table = "\n".join(f"| {' | '.join(row[: None if notes else 3])} |" for row in rows)
    sections[kind.__name__] = f"### {kind.__name__}\n\n{summary}\n\n{table}"


def _shown(kind: Any, sections: dict[str, str]) -> str:
    """Return an annotation in few words; a dataclass is a link to its section, which is added."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in SIMPLE:
        return SIMPLE[kind]
    if dataclasses.is_dataclass(kind):
        _add_section(kind, sections)
        name = getattr(kind, "__name__", "")
        return f"[{name}](#{name.lower()})"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_shown(argument, sections) for argument in arguments)
    if origin is Mapping:
        return f"{_shown(arguments[1], sections)} by name"
    if origin is tuple and arguments[1:] == (...,):
        return f"list of {_shown(arguments[0], sections)}"
    if origin is tuple:
        return f"{len(arguments)} of {_shown(arguments[0], sections)}"
    raise TypeError(f"{kind}: no words for this annotation")


def _docstring(kind: Any) -> tuple[str, dict[str, str]]:
    """Return the docstring of a class and those of its fields by name; in Markdown, one line for each paragraph."""
    summary, _, attributes = inspect.cleandoc(kind.__doc__ or "").replace("``", "`").partition(_ATTRIBUTES)
    paragraphs = [" ".join(paragraph.split()) for paragraph in summary.split("\n\n")]
    notes = {name: " ".join(entry[2].split()) for entry in _ENTRY.finditer(attributes) for name in entry[1].split(", ")}
    return "\n\n".join(paragraphs).strip(), notes
