from __future__ import annotations

import re

import pytest

from sar_infer.lint.wording import glued, odd_characters, wording


def found(rule, name: str, text: str | None = None) -> list[tuple[str, str | None]]:
    return [(finding.severity, finding.suggestion) for finding in rule(name, text or name)]


@pytest.mark.parametrize(
    ("name", "severity", "suggestion"),
    [
        ("SKU-12345", "warning", None),
        ("ref 0098812", "warning", None),
        ("AB-123", "warning", None),
        ("#42", "warning", None),
        ("tabby_cat.jpg", "warning", "tabby cat"),
        (".jpg", "warning", None),
        ("a photo of a tabby cat", "warning", "tabby cat"),
        ("picture of the sea", "warning", "sea"),
        ("the sea", "info", "sea"),
        ("An owl", "info", "owl"),
        ("owl.", "info", "owl"),
        ("crane (bird)", "info", "crane, bird"),
        ("cardboard box / carton", "info", "cardboard box = cardboard box | carton"),
        ("traffic or street sign", "info", None),
        ("A or B", "info", None),
        ("a / b", "info", "a = a | b"),
    ],
)
def test_a_wording_that_can_be_bettered(name: str, severity: str, suggestion: str | None) -> None:
    assert found(wording, name) == [(severity, suggestion)]


@pytest.mark.parametrize(
    "name",
    [
        "a and b",
        "a & b",
        "owl",
        "anthill",
        "theatre",
        "Boeing 747-400",
        "2012 Audi A5 Coupe",
        "A320",
        "9/11",
        "orange",
        "St. Bernard",
    ],
)
def test_a_plain_name_is_left_alone(name: str) -> None:
    assert found(wording, name) == []
    assert found(odd_characters, name) == []


def test_a_phrase_may_say_or() -> None:
    assert found(wording, "bell", "bell or chime") == []


@pytest.mark.parametrize(
    ("name", "message", "suggestion"),
    [
        ("cat\u200b", r"cannot be seen \(U\+200B\)", "cat"),
        ("black \U0001f408", "symbols", "black cat"),
        ("\u2122 sign", "symbols", "trade mark sign sign"),
        ("кошка", "is written in Cyrillic", None),
        ("日本", "is written in CJK", None),
        ("cаt", "mixes Latin letters with Cyrillic ones", None),  # the a is Cyrillic
    ],
)
def test_characters_that_the_vocabulary_does_not_know(name: str, message: str, suggestion: str | None) -> None:
    (finding,) = odd_characters(name, name)
    assert (finding.kind, finding.severity, finding.suggestion) == ("odd-characters", "warning", suggestion)
    assert re.search(message, finding.message)


@pytest.mark.parametrize("name", ["café", "Øresund", "straße", "ªº", "naïve"])
def test_accents_are_latin(name: str) -> None:
    assert found(odd_characters, name) == []


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("goldenRetriever", "golden Retriever"),
        ("GoldenRetriever_dog", "Golden Retriever dog"),
        ("MacBook", None),
        ("iPhone", None),
        ("McDonald", None),
        ("golden retriever", None),
        ("golden_retriever", None),
    ],
)
def test_inner_capitals(text: str, apart: str | None) -> None:
    assert glued(text) == apart
