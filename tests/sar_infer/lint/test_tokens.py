from __future__ import annotations

import pytest
from support.bundles import SPEC, merges

from sar_infer.lint.tokens import odd_tokens, unusable
from sar_infer.text.tokenizer import Tokenizer, encode_name


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
