from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import SPEC, merges
from support.examples import examples

from sar_infer.errors import BundleError, ClassNameError
from sar_infer.text.tokenizer import JsonTokenizer, Tokenizer, encode_name

TOKENIZER = Tokenizer(merges())
PIECES = (
    *("don't", "I'LL", "'ſ", "<start_of_text>", "<END_OF_TEXT>", "&amp;lt;", "&eacute", "a\u0301", "ﬁ", "İ", "\u3000"),
    *("l’été", "\x1b[31m", "mÃ©lange", "☃", "日本", "١٢", "x" * 40, "\r\n", "_", "..."),
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(max_codepoint=0x7F), max_size=40),  # where repair is left out
    st.text(st.characters(max_codepoint=0x17F), max_size=40),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=6).map("".join),
)


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("open_clip").SimpleTokenizer()


@settings(max_examples=examples(2000))
@given(text=TEXTS)
def test_equals_open_clip(reference, text: str) -> None:
    assert TOKENIZER.encode(text) == reference.encode(text)


def test_every_token_can_be_reached(reference) -> None:
    """One text for each merge that is a word, so that a wrong rank or index shows wherever it is."""
    for word in [pair.replace(" ", "").removesuffix("</w>") for pair in merges() if pair.isascii()][::7]:
        assert TOKENIZER.encode(word) == reference.encode(word)
    assert (TOKENIZER.start_token, TOKENIZER.end_token) == (reference.sot_token_id, reference.eot_token_id)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no gzip", id="not compressed"),
        pytest.param(gzip.compress(b"")[:-6], id="cut off"),
        pytest.param(gzip.compress(b"#version\n"), id="no merges"),
        pytest.param(gzip.compress(b"#version\na b c\n"), id="a merge of three"),
        pytest.param(gzip.compress(b"\xff"), id="not UTF-8"),
        pytest.param(gzip.compress(b"a b\n" * 2**22), id="a bomb"),
    ],
)
def test_damaged_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BundleError, match=r"t\.gz"):
        Tokenizer.open(tmp_path / "t.gz")
    (tmp_path / "t.gz").write_bytes(content)
    with pytest.raises(BundleError, match=r"t\.gz"):
        Tokenizer.open(tmp_path / "t.gz")


def test_the_suffix_is_encoded_with_the_name() -> None:
    assert encode_name(TOKENIZER, SPEC, "red_fox") == TOKENIZER.encode("red fox.")
    assert encode_name(TOKENIZER, SPEC, "u.s.") == TOKENIZER.encode("u.s..") != [*TOKENIZER.encode("u.s."), 269]
    assert len(encode_name(TOKENIZER, SPEC, "dog " * 17)) == SPEC.max_name_tokens


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dog " * 18, "19 tokens"),
        ("x" * 500, "too long"),
        ("x" * 5000, "5000 characters"),
        ("  \t", "empty"),
        ("\x01\x02", "empty"),
        ("a \ud800", "UTF-8"),
        ("a <end&lowbar;of&lowbar;text> b", "reserved"),
    ],
)
def test_names_that_cannot_be_encoded(name: str, message: str) -> None:
    with pytest.raises(ClassNameError, match=message) as caught:
        encode_name(TOKENIZER, SPEC, name)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- tokenizer.json
def tokenizer_json(path: Path, **changes: Any) -> Path:
    """Write a tokenizer whose unknown token is its end token, as CLIP's on a hub."""
    word_level = {"type": "WordLevel", "vocab": {"<end>": 0, "cat": 1, "dog": 2}, "unk_token": "<end>"}
    added = {"id": 0, "content": "<end>", "special": True}
    added |= {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    split = {"type": "WhitespaceSplit"}
    path.write_text(json.dumps({"added_tokens": [added], "pre_tokenizer": split, "model": word_level} | changes))
    return path


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Sequence", "normalizers": [replace("a", "a" * 10)] * 9},
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "abc"}] * 9},
        {"type": "Prepend", "prepend": "a" * 10**6},
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(bytes(8) + b"a" * 2000).decode()},
    ],
)
def test_a_tokenizer_that_makes_texts_endless_is_refused(normalizer: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="times as long|not a tokenizer file"):
        JsonTokenizer.open(tokenizer_json(tmp_path / "t.json", normalizer=normalizer), "lower")


BACKTRACKING = {"type": "Split", "pattern": {"Regex": "(a+)+$|(a|aa)+b"}, "behavior": "Isolated", "invert": False}
NO_UNKNOWN = {"type": "WordLevel", "vocab": {"b": 0}, "unk_token": "zzz"}


@pytest.mark.parametrize("changes", [{"pre_tokenizer": BACKTRACKING}, {"model": NO_UNKNOWN}])
def test_a_tokenizer_that_fails_or_panics_is_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = JsonTokenizer.open(tokenizer_json(tmp_path / "t.json", **changes), "lower")
    with pytest.raises(ClassNameError, match="cannot encode") as caught:
        tokenizer.encode("a" * 200 + "!")
    assert "\n" not in str(caught.value)


def test_an_unknown_token_that_is_the_end_token_is_reserved(tmp_path: Path) -> None:
    tokenizer = JsonTokenizer.open(tokenizer_json(tmp_path / "t.json"), "lower")
    spec = dataclasses.replace(SPEC, kind="tokenizer.json", suffix="", prefix="", end_token=0)
    assert encode_name(tokenizer, spec, "cat dog") == [1, 2]
    for name in ("cat <end> dog", "cat <end>", "cat horse"):
        with pytest.raises(ClassNameError, match="reserved"):
            encode_name(tokenizer, spec, name)
