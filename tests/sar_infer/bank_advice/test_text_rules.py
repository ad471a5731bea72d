from __future__ import annotations

import re

import pytest
from support.bundles import SPEC, merges

from sar_infer.bank_advice.text_rules import KnownNames, glued, loose_key, odd_characters, odd_tokens, unusable, wording
from sar_infer.text.tokenizer import Tokenizer, encode_name


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
        ("cardboard box / carton", "info", None),
        ("traffic or street sign", "info", None),
        ("A or B", "info", None),
        ("a / b", "info", None),
        ("red/skirt", "info", None),
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


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(merges())


@pytest.mark.parametrize("words", [17, 18, 40])
def test_what_does_not_fit_is_named(tokenizer: Tokenizer, words: int) -> None:
    name = " ".join(["cat"] * 16 + ["lost"] * (words - 16))  # a word is a token, and the suffix is one
    if words == 17:
        assert unusable(name, name, tokenizer, SPEC) is None
        return
    finding = unusable(name, name, tokenizer, SPEC)
    assert finding is not None
    assert (finding.kind, finding.severity) == ("too-long", "error")
    assert finding.message.startswith("18 tokens fit, so this would be lost: 'lost")
    assert finding.suggestion == " ".join(["cat"] * 16 + ["lost"])
    encode_name(tokenizer, SPEC, finding.suggestion)


def test_a_word_that_alone_is_too_long_has_no_suggestion(tokenizer: Tokenizer) -> None:
    finding = unusable("x", "zq" * 40, tokenizer, SPEC)
    assert finding is not None
    assert (finding.kind, finding.name, finding.suggestion) == ("too-long", "x", None)


@pytest.mark.parametrize("name", ["", " _ ", "x" * 5000])
def test_what_the_encoder_refuses_is_an_error(tokenizer: Tokenizer, name: str) -> None:
    finding = unusable(name, name, tokenizer, SPEC)
    assert finding is not None
    assert finding.severity == "error"


@pytest.mark.parametrize(
    ("text", "severity"), [("Donaudampfschifffahrt", "warning"), ("axolotl", "info"), ("xkcdqwrtz", "warning")]
)
def test_a_word_in_pieces(tokenizer: Tokenizer, text: str, severity: str) -> None:
    (finding,) = odd_tokens("name", f"big {text}", tokenizer)
    count = len(tokenizer.encode(text))
    assert (finding.kind, finding.severity, finding.name) == ("odd-tokens", severity, "name")
    assert f"{text!r} into {count} tokens" in finding.message


@pytest.mark.parametrize("text", ["golden retriever", "xylophone", "PlayStation", "ox", "Siberian Husky", "747"])
def test_known_words_are_left_alone(tokenizer: Tokenizer, text: str) -> None:
    assert list(odd_tokens(text, text, tokenizer)) == []


def test_words_that_are_glued_together(tokenizer: Tokenizer) -> None:
    (finding,) = odd_tokens("goldenRetriever", "goldenRetriever", tokenizer)
    assert (finding.severity, finding.suggestion) == ("warning", "golden Retriever")


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


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("shoe", "shoes"),
        ("dress", "dresses"),
        ("blouse", "blouses"),
        ("box", "boxes"),
        ("watch", "watches"),
        ("scarf", "scarves"),
        ("knife", "knives"),
        ("glove", "gloves"),
        ("cherry", "cherries"),
        ("cookie", "cookies"),
        ("potato", "potatoes"),
        ("bus", "buses"),
    ],
)
def test_a_plural_is_close_to_its_singular_and_the_other_way_round(one: str, many: str) -> None:
    for known, name in ((one, many), (many, one)):
        finding = KnownNames([(known, known)]).check(name)
        assert finding is not None
        assert (finding.severity, finding.suggestion) == ("warning", known)
        assert finding.message.startswith(f"is close to the class {known!r}; use that name, or make this an alias")


def test_names_are_doubled_within_one_call_too(known: KnownNames) -> None:
    assert known.check("owl") is None
    known.add("owl", "owl")
    finding = known.check("Owls")
    assert finding is not None
    assert finding.suggestion == "owl"


def test_signs_alone_are_told_apart() -> None:
    assert len({loose_key(sign) for sign in ("?", "!", "?!")}) == 3
