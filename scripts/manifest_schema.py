"""The JSON Schema (2020-12) of ``manifest.json``, made from the dataclasses of `sar_infer.bundle.manifest`.

    python -m scripts.manifest_schema            writes docs/manifest.schema.json

It says what the reader accepts but for the digest, which no schema can check, and for what
`sar_infer.bundle.checks` compares. Descriptions are the docstrings: those of
a class, and of its fields where it has an "Attributes:" section.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sar_infer.bundle.manifest import SCHEMA_VERSION, Manifest

TARGET = Path(__file__).resolve().parent.parent / "docs" / "manifest.schema.json"
SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_ATTRIBUTES = "\nAttributes:\n"
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n     .*)*)", re.MULTILINE)
_REFERENCE = "#/$defs/"


def schema() -> dict[str, Any]:
    """Return the whole schema; every dataclass is a definition of its own."""
    definitions: dict[str, Any] = {}
    _define(Manifest, definitions)
    manifest = definitions.pop(Manifest.__name__)
    manifest["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    manifest["required"].append("digest")  # the reader compares it, so it has to be there
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sar-clip:schema:manifest:{SCHEMA_VERSION}",
        "title": "manifest.json of a sar-clip bundle",
        **manifest,
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """Return the schema as it is committed."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def page(_: str = "") -> str:
    """Return Markdown: a table of fields for the manifest and for each object in it."""
    whole = schema()
    sections = [_described("Manifest", whole), *(_described(name, entry) for name, entry in whole["$defs"].items())]
    return "\n\n".join(sections)


def _define(kind: Any, definitions: dict[str, Any]) -> None:
    """Add the definition of a dataclass, and of those it holds."""
    summary, notes = _docstring(kind)
    hints = typing.get_type_hints(kind)
    fields = {field.name: _type(hints[field.name], definitions) for field in dataclasses.fields(kind)}
    for field in dataclasses.fields(kind):
        if field.name in notes:
            fields[field.name]["description"] = notes[field.name]
        if field.default not in (dataclasses.MISSING, None) and not dataclasses.is_dataclass(field.default):
            fields[field.name]["default"] = field.default
    definitions[kind.__name__] = {
        "description": summary,
        "type": "object",
        "properties": fields,
        "required": [
            field.name
            for field in dataclasses.fields(kind)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ],
        "additionalProperties": False,
    }


def _type(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an annotation, of the kinds that the reader knows."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if kind in SIMPLE:
        return {"type": SIMPLE[kind]}
    if dataclasses.is_dataclass(kind):
        _define(kind, definitions)
        return {"$ref": _REFERENCE + getattr(kind, "__name__", "")}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_type(argument, definitions) for argument in arguments]}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _type(arguments[1], definitions)}
    if origin is tuple and arguments[1:] == (...,):
        return {"type": "array", "items": _type(arguments[0], definitions)}
    if origin is tuple:
        items = [_type(argument, definitions) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    raise TypeError(f"{kind}: no schema for this annotation")


def _docstring(kind: Any) -> tuple[str, dict[str, str]]:
    """Return the docstring of a class and those of its fields by name; in Markdown, one line for each paragraph."""
    summary, _, attributes = inspect.cleandoc(kind.__doc__ or "").replace("``", "`").partition(_ATTRIBUTES)
    paragraphs = [" ".join(paragraph.split()) for paragraph in summary.split("\n\n")]
    notes = {name: " ".join(entry[2].split()) for entry in _ENTRY.finditer(attributes) for name in entry[1].split(", ")}
    return "\n\n".join(paragraphs).strip(), notes


def _described(name: str, definition: dict[str, Any]) -> str:
    """Return heading, docstring and table of one object, with a column of descriptions where it has some."""
    noted = any("description" in kind for kind in definition["properties"].values())
    rows = [["field", "type", "", ""], ["---"] * 4]
    for field, kind in definition["properties"].items():
        needed = "required" if field in definition["required"] else "optional"
        rows.append([f"`{field}`", _shown(kind), needed, kind.get("description", "")])
    table = "\n".join(f"| {' | '.join(row[: None if noted else 3])} |" for row in rows)
    return f"### {name}\n\n{definition['description']}\n\n{table}"


def _shown(kind: dict[str, Any]) -> str:
    """Return a type in few words."""
    if "$ref" in kind:
        name = kind["$ref"].removeprefix(_REFERENCE)
        return f"[{name}](#{name.lower()})"
    if "enum" in kind:
        return " or ".join(f"`{value}`" for value in kind["enum"])
    if "anyOf" in kind:
        return " or ".join(_shown(option) for option in kind["anyOf"])
    if "items" in kind:
        return f"list of {_shown(kind['items'])}"
    if "prefixItems" in kind:
        return f"{len(kind['prefixItems'])} of {_shown(kind['prefixItems'][0])}"
    if "additionalProperties" in kind:
        return f"{_shown(kind['additionalProperties'])} by name"
    return str(kind.get("type", "any"))


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
