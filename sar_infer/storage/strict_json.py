"""Strict JSON: parsed into annotated dataclasses, with no value converted and no key ignored, and its digest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from sar_infer.errors import BundleError, raised_as


def read_sealed(text: str, source: str) -> tuple[dict[str, Any], str]:
    """Return a JSON object, and the digest of all its fields except ``digest``.

    Raises:
        BundleError: The text is not JSON, or not an object.
    """
    # A lone surrogate, which has no UTF-8, is a ValueError too.
    with raised_as(BundleError, f"{source}: not valid JSON", (ValueError, RecursionError)):
        data = json.loads(text, parse_constant=_refuse)
        if isinstance(data, dict):
            return data, canonical_digest({key: value for key, value in data.items() if key != "digest"})
    raise BundleError(f"{source}: expected a JSON object, got {type(data).__name__}")


def canonical_digest(content: Any) -> str:
    """Return the SHA-256 (hex) of a value's JSON with sorted keys and no white space."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")


def build(kind: Any, value: Any, source: str, where: str = "") -> Any:
    """Return parsed JSON as the annotated type, made of dataclasses, tuples, mappings and plain values.

    Args:
        kind: The type.
        value: The JSON.
        source: What messages name.
        where: The field in it that has the value, with a dot before it.

    Raises:
        BundleError: A field is missing, unknown or of another type; the message names the source and the field.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, source, where)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else build(arguments[0], value, source, where)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(value):
            return tuple(
                build(k, v, source, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
            )
    if origin is Mapping and isinstance(value, dict):
        return {key: build(arguments[1], item, source, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    expected = (
        f"one of {', '.join(map(repr, arguments))}" if origin is Literal else getattr(kind, "__name__", str(kind))
    )
    raise _mismatch(source, where, expected, value)


def _mismatch(source: str, where: str, expected: str, value: Any) -> BundleError:
    field = where.lstrip(".") or "at the top"
    return BundleError(f"{source}: field {field}: expected {expected}, got {value!r:.80}")


_hints = functools.cache(typing.get_type_hints)


def _build_dataclass(kind: Any, value: Any, source: str, where: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(source, where, "an object", value)
    hints = _hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(value.keys() - fields.keys())
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - value.keys())
    if missing or unknown:
        problem = "missing" if missing else "unknown"
        raise BundleError(
            f"{source}: {problem} field {where.lstrip('.') + '.' if where else ''}{(missing or unknown)[0]}"
        )
    return kind(**{name: build(hints[name], item, source, f"{where}.{name}") for name, item in value.items()})


def json_values(value: Any) -> Any:
    """Return dataclasses and named tuples, at every depth, as objects of JSON, without fields that do not compare."""
    if dataclasses.is_dataclass(value):
        return {one.name: json_values(getattr(value, one.name)) for one in dataclasses.fields(value) if one.compare}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return [*map(json_values, value)] if isinstance(value, list | tuple) else value


def printable_json(value: Any) -> str:
    """Return JSON on one line in which everything unprintable is escaped, so that a terminal does not obey it."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
