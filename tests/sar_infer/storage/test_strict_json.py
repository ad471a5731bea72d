from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from sar_infer.errors import BundleError
from sar_infer.storage.strict_json import build, canonical_digest, read_sealed


@dataclass(frozen=True)
class Leg:
    length: float


@dataclass(frozen=True)
class Animal:
    kind: Literal["cat", "bird"]
    legs: tuple[Leg, ...]
    position: tuple[int, int] = (0, 0)
    tame: bool = False
    name: str | None = None
    traits: Mapping[str, float] = field(default_factory=dict)
    notes: Any = None


CAT: dict[str, Any] = {"kind": "cat", "legs": [{"length": 1}]}


def test_every_kind_of_field() -> None:
    content = {"position": [3, 4], "tame": True, "name": "Tom", "traits": {"speed": 2}, "notes": [1, {"a": None}]}
    animal = build(Animal, CAT | content, "x")
    assert animal == Animal("cat", (Leg(1.0),), (3, 4), True, "Tom", {"speed": 2.0}, [1, {"a": None}])
    assert (type(animal.legs[0].length), type(animal.traits["speed"])) == (float, float)
    assert build(tuple[Leg, ...], [{"length": 1}, {"length": 2.5}], "x") == (Leg(1.0), Leg(2.5))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([], "at the top"),
        ({"legs": [{}]}, "kind"),
        (CAT | {"legs": [{}]}, r"legs\[0\].length"),
        (CAT | {"colour": "red"}, "colour"),
        (CAT | {"legs": [{"length": 1, "toes": 5}]}, r"legs\[0\].toes"),
        (CAT | {"kind": "cow"}, "cow"),
        (CAT | {"legs": [{"length": float("inf")}]}, r"legs\[0\].length"),
        (CAT | {"legs": [{"length": 10**400}]}, r"legs\[0\].length"),
        (CAT | {"position": [1]}, "position"),
        (CAT | {"position": [1, True]}, r"position\[1\]"),
        (CAT | {"traits": {"speed": "2"}}, "traits.speed"),
        (CAT | {"name": ["x" * 1000]}, "name: .{,110}$"),
    ],
)
def test_the_first_thing_that_does_not_fit_is_named(content: Any, named: str) -> None:
    with pytest.raises(BundleError, match=f"^file: .*{named}"):
        build(Animal, content, "file")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": "\\ud800"}', "utf-8"),
        ("[]", "list"),
    ],
)
def test_what_is_no_json_object(text: str, named: str) -> None:
    with pytest.raises(BundleError, match=f"^file: .*{named}"):
        read_sealed(text, "file")


def test_the_digest_of_an_object_is_of_all_but_its_digest() -> None:
    content = {"b": [2], "a": 1}
    assert read_sealed(json.dumps(content), "file") == (content, canonical_digest(content))
    sealed = content | {"digest": "anything"}
    assert read_sealed(json.dumps(sealed), "file") == (sealed, canonical_digest(content))


def test_canonical_digest_knows_neither_order_nor_layout() -> None:
    assert canonical_digest({"a": 1, "b": [2]}) == canonical_digest(json.loads('{"b": [2],\n "a": 1}'))
    assert canonical_digest({"a": 1}) != canonical_digest({"a": 2})
