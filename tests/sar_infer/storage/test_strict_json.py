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
    place: tuple[int, int] = (0, 0)
    tame: bool = False
    name: str | None = None
    traits: Mapping[str, float] = field(default_factory=dict)
    notes: Any = None


CAT: dict[str, Any] = {"kind": "cat", "legs": [{"length": 1}]}


def test_what_is_left_out_has_its_default() -> None:
    assert build(Animal, CAT, "x") == Animal("cat", (Leg(1.0),))


def test_every_kind_of_field() -> None:
    content = {"place": [3, 4], "tame": True, "name": "Tom", "traits": {"speed": 2}, "notes": [1, {"a": None}]}
    found = build(Animal, CAT | content, "x")
    assert found == Animal("cat", (Leg(1.0),), (3, 4), True, "Tom", {"speed": 2.0}, [1, {"a": None}])
    assert (type(found.legs[0].length), type(found.traits["speed"])) == (float, float)
    assert build(tuple[Leg, ...], [{"length": 1}, {"length": 2.5}], "x") == (Leg(1.0), Leg(2.5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "field at the top: expected an object, got "),
        ({"legs": []}, "missing field kind"),
        ({"legs": [{}]}, "missing field kind"),
        (CAT | {"legs": [{}]}, r"missing field legs\[0\].length"),
        (CAT | {"colour": "red"}, "unknown field colour"),
        (CAT | {"legs": [{"length": 1, "toes": 5}]}, r"unknown field legs\[0\].toes"),
        (CAT | {"kind": "cow"}, "field kind: expected one of 'cat', 'bird', got 'cow'"),
        (CAT | {"legs": {}}, "field legs: expected tuple, got {}"),
        (CAT | {"legs": [{"length": "1"}]}, r"field legs\[0\].length: expected float, got '1'"),
        (CAT | {"legs": [{"length": True}]}, r"field legs\[0\].length: expected float, got True"),
        (CAT | {"legs": [{"length": None}]}, r"field legs\[0\].length: expected float, got None"),
        (CAT | {"legs": [{"length": float("inf")}]}, r"field legs\[0\].length: expected float, got inf"),
        (CAT | {"legs": [{"length": 10**400}]}, r"field legs\[0\].length: expected float, got 1000"),
        (CAT | {"place": [1]}, "field place: expected tuple"),
        (CAT | {"place": [1, 2.0]}, r"field place\[1\]: expected int, got 2.0"),
        (CAT | {"place": [1, True]}, r"field place\[1\]: expected int, got True"),
        (CAT | {"tame": 1}, "field tame: expected bool, got 1"),
        (CAT | {"name": 3}, "field name: expected str, got 3"),
        (CAT | {"traits": []}, "field traits: expected Mapping, got "),
        (CAT | {"traits": {"speed": "2"}}, "field traits.speed: expected float, got '2'"),
        (CAT | {"name": ["x" * 1000]}, "field name: expected str, got .{80}$"),
    ],
)
def test_the_first_thing_that_does_not_fit_is_named(content: Any, message: str) -> None:
    with pytest.raises(BundleError, match=f"^file: {message}"):
        build(Animal, content, "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": NaN}', "not valid JSON .NaN is not a number of JSON"),
        ('{"a": -Infinity}', "not valid JSON .-Infinity is not a number of JSON"),
        ('{"a": "\\ud800"}', "not valid JSON .'utf-8' codec can't encode"),
        ("[]", "expected a JSON object, got list"),
    ],
)
def test_what_is_no_json_object(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=f"^file: {message}"):
        read_sealed(text, "file")


def test_the_digest_of_an_object_is_of_all_but_its_digest() -> None:
    content = {"b": [2], "a": 1}
    assert read_sealed(json.dumps(content), "file") == (content, canonical_digest(content))
    sealed = content | {"digest": "anything"}
    assert read_sealed(json.dumps(sealed), "file") == (sealed, canonical_digest(content))


def test_canonical_digest_knows_neither_order_nor_layout() -> None:
    assert canonical_digest({"a": 1, "b": [2]}) == canonical_digest(json.loads('{"b": [2],\n "a": 1}'))
    assert canonical_digest({"a": 1}) != canonical_digest({"a": 2})
