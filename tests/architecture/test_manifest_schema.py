"""The schema of ``manifest.json`` is the one committed, and says what the reader says."""

from __future__ import annotations

import copy
import dataclasses
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sar_infer.bundle import manifest as bundle_manifest
from sar_infer.errors import BundleError
from sar_infer.storage.strict_json import canonical_digest
from scripts import manifest_schema

ROOT = Path(__file__).parents[2]
SHIPPED = json.loads(
    bundle_manifest.Manifest.parse((ROOT / "exports" / "mini" / "manifest.json").read_text("utf-8")).sealed().dump()
)
VALIDATOR = Draft202012Validator(manifest_schema.schema())
WRONG: tuple[Any, ...] = (None, True, 7, -0.5, "text", [], {})


def filled(kind: Any) -> Any:
    """A JSON value for an annotation, with every optional field there; maps and lists have one entry."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {field.name: filled(hints[field.name]) for field in dataclasses.fields(kind)}
    if origin is typing.Literal:
        return arguments[-1]
    if origin is tuple:
        return [filled(argument) for argument in arguments if argument is not ...]
    if arguments and type(None) in arguments:
        return filled(arguments[0])
    if arguments:
        return {"key": filled(arguments[1])}
    return {bool: True, int: 1, float: 0.5, str: "word", Any: {"any": [1, None]}}[kind]


FULL = filled(bundle_manifest.Manifest) | {"schema_version": bundle_manifest.SCHEMA_VERSION}


def read(content: dict[str, Any]) -> bool:
    """Does the reader take it, once its digest is right?"""
    if isinstance(content.get("digest"), str):
        content = content | {"digest": canonical_digest({k: v for k, v in content.items() if k != "digest"})}
    try:
        bundle_manifest.Manifest.parse(json.dumps(content))
    except BundleError:
        return False
    return True


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield (*path, key)
        yield from paths_in(item, (*path, key))


def changed(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies in which one thing is another, gone, or too much."""
    for path in paths_in(content):
        for wrong in WRONG:
            copied, parent = copied_with_parent(content, path)
            parent[path[-1]] = wrong
            yield f"{path} = {wrong!r}", copied
        copied, parent = copied_with_parent(content, path)
        value = parent.pop(path[-1])
        yield f"{path} removed", copied
        copied, parent = copied_with_parent(content, path)
        if isinstance(parent, dict):
            parent["stranger"] = value
        else:
            parent.append(value)
        yield f"beside {path}", copied


def copied_with_parent(content: dict[str, Any], path: tuple[Any, ...]) -> tuple[dict[str, Any], Any]:
    """Return a copy of a manifest, and in it what holds the end of a path."""
    copied = copy.deepcopy(content)
    parent: Any = copied
    for key in path[:-1]:
        parent = parent[key]
    return copied, parent


def test_the_committed_schema_is_the_generated_one() -> None:
    assert manifest_schema.TARGET.read_text("utf-8") == manifest_schema.text(), "run: make schema"
    Draft202012Validator.check_schema(manifest_schema.schema())


@pytest.mark.parametrize("manifest", [SHIPPED, FULL], ids=["shipped", "every field"])
def test_good_manifests_are_valid(manifest: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(manifest)] == []
    assert read(manifest)


def test_schema_and_reader_refuse_the_same() -> None:
    verdicts = {change: (VALIDATOR.is_valid(content), read(content)) for change, content in changed(FULL)}
    assert {change for change, (schema, reader) in verdicts.items() if schema != reader} == set()
    refused = sum(not schema for schema, _ in verdicts.values())
    assert refused > len(verdicts) / 2


def test_a_manifest_of_the_future_is_not_valid() -> None:
    assert not VALIDATOR.is_valid(SHIPPED | {"schema_version": bundle_manifest.SCHEMA_VERSION + 1})


def test_the_generated_page_has_a_row_for_every_field() -> None:
    page = manifest_schema.page()
    for name, part in [("Manifest", manifest_schema.schema()), *manifest_schema.schema()["$defs"].items()]:
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert [field for field in part["properties"] if f"| `{field}` |" not in section] == []
    assert all("description" in part for part in manifest_schema.schema()["properties"].values())
    assert "| `mean` | 3 of number | required |" in page
