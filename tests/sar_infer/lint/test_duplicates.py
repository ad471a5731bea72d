from __future__ import annotations

import pytest

from sar_infer.lint.duplicates import KnownNames, loose_key


@pytest.fixture
def known() -> KnownNames:
    names = ["tabby cat", "Siberian Husky", "glass", "goldfish", "café", "bus"]
    return KnownNames([*((name, name) for name in names), ("moggy", "tabby cat")])


@pytest.mark.parametrize(
    ("name", "severity", "owner"),
    [
        ("tabby cat", "info", "tabby cat"),
        ("Tabby  CAT", "warning", "tabby cat"),
        ("Moggy", "warning", "tabby cat"),
        ("tabby_cat", "warning", "tabby cat"),
        ("tabby-cat", "warning", "tabby cat"),
        ("tabbycat", "warning", "tabby cat"),
        ("tabby cats", "warning", "tabby cat"),
        ("Siberian Huskies", "warning", "Siberian Husky"),
        ("glasses", "warning", "glass"),
        ("goldfishes", "warning", "goldfish"),
        ("cafe", "warning", "café"),
        ("cafe\u0301", "warning", "café"),
        ("buses", "warning", "bus"),
    ],
)
def test_spellings_of_one_name(known: KnownNames, name: str, severity: str, owner: str) -> None:
    finding = known.check(name)
    assert finding is not None
    assert (finding.kind, finding.severity, finding.suggestion) == ("duplicate", severity, owner)


@pytest.mark.parametrize("name", ["tabby", "cat", "gas", "lass", "bush", "gold fishing", "", "?", "!"])
def test_other_names(known: KnownNames, name: str) -> None:
    assert known.check(name) is None


def test_names_are_doubled_within_one_call_too(known: KnownNames) -> None:
    assert known.check("owl") is None
    known.add("owl", "owl")
    finding = known.check("Owls")
    assert finding is not None
    assert finding.suggestion == "owl"


def test_signs_alone_are_told_apart() -> None:
    assert len({loose_key(sign) for sign in ("?", "!", "?!")}) == 3
