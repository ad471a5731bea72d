from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import example_manifest

from sar_infer.bundle.manifest import FileEntry, Manifest, Parity, Provenance, Quality, Scores, SelfTestVector, Variant
from sar_infer.errors import BundleError, SchemaError

SEALED = example_manifest().sealed()
FULL = dataclasses.replace(
    example_manifest(),
    files={"a": FileEntry("0" * 64, 5)},
    logit_bias=-1.5,
    self_test=SelfTestVector(3, (0.6, 0.8)),
    precisions={"int8": Variant("a", 2, 0.9, 0.95, 0.9, 2.0, 0.99)},
    quality=Quality(
        dataset="d",
        seeds=(1, 2),
        zero_shot=Scores(1.0, 2.0, 1.3),
        parity=Parity(2, 0.99, 1.0, 3, 1e-6),
        tables={"t": [1, {}]},
    ),
).sealed()


def changed(**fields: Any) -> str:
    """Manifest text with top-level JSON fields replaced; ... removes one."""
    content = {**json.loads(SEALED.dump()), **fields}
    return json.dumps({key: value for key, value in content.items() if value is not ...})


def test_round_trip() -> None:
    assert Manifest.parse(FULL.dump()) == FULL


@given(
    scale=st.floats(0.1, 1000) | st.integers(1, 1000),
    text=st.text(st.characters(blacklist_categories=["Cs"])),
    weights=st.dictionaries(st.sampled_from("ab"), st.integers(0, 3) | st.floats(0, 3)),
)
def test_whatever_is_sealed_can_be_read(scale: float, text: str, weights: dict[str, float]) -> None:
    """Whole numbers among them: they stand as floats in what is read, and must not change the digest."""
    provenance = Provenance(text, text, {text: text})
    manifest = dataclasses.replace(example_manifest(), logit_scale=scale, regularisers=weights, provenance=provenance)
    parsed = Manifest.parse(manifest.sealed().dump())
    assert (parsed.logit_scale, parsed.regularisers, parsed.provenance) == (scale, weights, provenance)


def test_a_later_schema_says_what_reads_it() -> None:
    with pytest.raises(SchemaError, match="schema_version 1, got 7; upgrade sar-clip"):
        Manifest.parse(changed(schema_version=7, anything="new"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (changed(preprocess={**dataclasses.asdict(SEALED.preprocess), "resize_mode": "x"}), "preprocess.resize_mode"),
        (changed(backbone="other"), "digest"),
        (changed(digest=...), "digest"),
    ],
)
def test_bad_manifests(text: str, named: str) -> None:
    with pytest.raises(BundleError, match=named) as caught:
        Manifest.parse(text, "m.json")
    assert str(caught.value).startswith("m.json: ")
    assert "\n" not in str(caught.value)
