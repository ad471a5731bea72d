"""Findings on names."""

from __future__ import annotations

import pytest

from sar_infer import Classifier
from sar_infer.evaluation.findings import duplicates, too_long


@pytest.mark.parametrize(
    ("name", "owner"),
    [("tee shirt", "Tee-Shirt"), ("CAFÉ", "cafe"), ("T-shirt", "T shirt"), ("tench", "Tinca")],
)
def test_a_name_spelled_almost_like_a_known_one_is_a_duplicate(name: str, owner: str) -> None:
    known = {"Tee-Shirt": "Tee-Shirt", "cafe": "cafe", "T shirt": "T shirt", "Tench!": "Tinca"}
    (finding,) = duplicates([name], known)
    assert (finding.kind, finding.name, finding.suggestion) == ("duplicate", name, owner)


def test_the_same_class_and_other_words_are_no_duplicates() -> None:
    assert duplicates(["Orange", "oranges", "dress shoe", "犬", "#", "*"], {"orange": "orange"}) == []
    (finding,) = duplicates(["ice cream", "ice-cream"], {})
    assert (finding.name, finding.suggestion) == ("ice-cream", "ice cream")


def test_a_name_above_the_tokenizer_s_length() -> None:
    bundle = Classifier.open().bundle
    spec = bundle.manifest.tokenizer
    words = ["dog"] * (spec.max_name_tokens - len(bundle.tokenizer.encode(spec.suffix)))
    fits, long = " ".join(words), " ".join([*words, "and", "cat"])
    assert too_long({fits: (fits,)}, bundle.tokenizer, spec) == []
    (finding,) = too_long({"x": ("x", long)}, bundle.tokenizer, spec)
    assert (finding.kind, finding.name, finding.suggestion) == ("too-long", "x", fits)
    assert "'and cat' would be lost" in finding.message
