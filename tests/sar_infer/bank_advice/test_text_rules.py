from __future__ import annotations

import pytest
from support.bundles import SPEC, merges

from sar_infer.bank_advice import text_findings
from sar_infer.bank_advice.text_rules import KnownNames, unusable
from sar_infer.text.tokenizer import Tokenizer, encode_name

TOKENIZER = Tokenizer(merges())
CODE, FILE, SEVERAL = "looks like a code", "looks like a file name", "more than one thing"
PIECES = "the vocabulary breaks {!r} into {} tokens"


@pytest.mark.parametrize(
    ("text", "kind", "severity", "suggestion", "message"),
    [
        *((text, "wording", "warning", None, CODE) for text in ("SKU-12345", "ref 0098812", "AB-123", "#42")),
        ("tabby_cat.jpg", "wording", "warning", "tabby cat", FILE),
        (".jpg", "wording", "warning", None, FILE),
        ("a photo of a tabby cat", "wording", "warning", "tabby cat", "says already that it is a photo"),
        ("picture of the sea", "wording", "warning", "sea", "says already that it is a photo"),
        ("the sea", "wording", "info", "sea", "adds the article"),
        ("An owl", "wording", "info", "owl", "adds the article"),
        ("owl.", "wording", "info", "owl", "ends the sentence itself"),
        ("crane (bird)", "wording", "info", "crane, bird", "brackets"),
        *(
            (text, "wording", "info", None, SEVERAL)
            for text in ("cardboard box / carton", "traffic or street sign", "A or B", "a / b", "red/skirt")
        ),
        ("cat\u200b", "odd-characters", "warning", "cat", "cannot be seen (U+200B)"),
        ("black \U0001f408", "odd-characters", "warning", "black cat", "symbols"),
        ("\u2122 sign", "odd-characters", "warning", "trade mark sign sign", "symbols"),
        ("\u0434\u043e\u043c", "odd-characters", "warning", None, "is written in Cyrillic"),
        ("日本", "odd-characters", "warning", None, "is written in CJK"),
        ("c\u0430t", "odd-characters", "warning", None, "mixes Latin letters with Cyrillic ones"),
        ("goldenRetriever", "odd-tokens", "warning", "golden Retriever", "put spaces"),
        ("GoldenRetriever_dog", "odd-tokens", "warning", "Golden Retriever dog", "put spaces"),
        ("big Donaudampfschifffahrt", "odd-tokens", "warning", None, PIECES.format("Donaudampfschifffahrt", 9)),
        ("big axolotl", "odd-tokens", "info", None, PIECES.format("axolotl", 4)),
        ("xkcdqwrtz", "odd-tokens", "warning", None, PIECES.format("xkcdqwrtz", 6)),
    ],
)
def test_an_odd_text_has_one_finding(text: str, kind: str, severity: str, suggestion: str | None, message: str) -> None:
    (finding,) = text_findings("name" if kind != "wording" else text, text, TOKENIZER)
    assert (finding.kind, finding.severity, finding.suggestion) == (kind, severity, suggestion)
    assert message in finding.message


@pytest.mark.parametrize(
    "text",
    [
        *("owl", "ox", "anthill", "theatre", "orange", "xylophone", "golden retriever", "golden_retriever"),
        *("a and b", "a & b", "9/11", "747", "A320", "Boeing 747-400", "2012 Audi A5 Coupe", "St. Bernard"),
        *("MacBook", "iPhone", "McDonald", "PlayStation", "Siberian Husky"),
        *("café", "Øresund", "ªº"),
    ],
)
def test_a_plain_text_has_none(text: str) -> None:
    assert list(text_findings(text, text, TOKENIZER)) == []


def test_a_phrase_may_say_or() -> None:
    assert list(text_findings("bell", "bell or chime", TOKENIZER)) == []


@pytest.mark.parametrize("words", [17, 18, 40])
def test_words_that_do_not_fit_are_named(words: int) -> None:
    name = " ".join(["cat"] * 16 + ["lost"] * (words - 16))  # a word is a token, and the suffix is one
    finding = unusable(name, name, TOKENIZER, SPEC)
    if words == 17:
        assert finding is None
        return
    assert finding is not None
    assert (finding.kind, finding.severity) == ("too-long", "error")
    assert finding.message.startswith("18 tokens fit, so this would be lost: 'lost")
    assert finding.suggestion == " ".join(["cat"] * 16 + ["lost"])
    encode_name(TOKENIZER, SPEC, finding.suggestion)


@pytest.mark.parametrize(
    ("text", "kind"), [("zq" * 40, "too-long"), ("", "unusable"), (" _ ", "unusable"), ("x" * 5000, "too-long")]
)
def test_a_text_that_no_shorter_one_mends(text: str, kind: str) -> None:
    finding = unusable("name", text, TOKENIZER, SPEC)
    assert finding is not None
    assert (finding.kind, finding.severity, finding.name, finding.suggestion) == (kind, "error", "name", None)


# ----------------------------------------------------------------------------------------------------------- duplicates
@pytest.fixture
def names() -> KnownNames:
    listed = ["tabby cat", "Siberian Husky", "glass", "goldfish", "café", "bus"]
    return KnownNames([*((name, name) for name in listed), ("moggy", "tabby cat")])


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
def test_spellings_of_one_name(names: KnownNames, name: str, severity: str, owner: str) -> None:
    finding = names.check(name)
    assert finding is not None
    assert (finding.kind, finding.severity, finding.suggestion) == ("duplicate", severity, owner)


@pytest.mark.parametrize("name", ["tabby", "cat", "gas", "lass", "bush", "gold fishing", "", "?", "!"])
def test_other_names(names: KnownNames, name: str) -> None:
    names.add("?!", "?!")
    assert names.check(name) is None


@pytest.mark.parametrize(
    ("one", "many"),
    [
        *(("shoe", "shoes"), ("dress", "dresses"), ("blouse", "blouses"), ("box", "boxes"), ("watch", "watches")),
        *(("scarf", "scarves"), ("knife", "knives"), ("glove", "gloves"), ("cherry", "cherries")),
        *(("cookie", "cookies"), ("potato", "potatoes"), ("bus", "buses")),
    ],
)
def test_a_plural_is_close_to_its_singular_and_the_other_way_round(one: str, many: str) -> None:
    for listed, name in ((one, many), (many, one)):
        finding = KnownNames([(listed, listed)]).check(name)
        assert finding is not None
        assert (finding.severity, finding.suggestion) == ("warning", listed)
        assert finding.message.startswith(f"is close to the class {listed!r}; use that name, or make this an alias")
