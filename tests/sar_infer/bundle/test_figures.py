"""Sentences that people read about photos learned, and about classes added later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.sound import write_sound

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.card import card
from sar_infer.bundle.describe import describe
from sar_infer.bundle.figures import expectation, photos_evaluated, photos_learned
from sar_infer.bundle.manifest import Quality

ENTRY = {
    "classes": 6,
    "defaults": None,
    "expected": [
        {"photos": 0, "accuracy": 38.2, "low": 14.1, "high": 62.4},
        {"photos": 1, "accuracy": 41.9, "low": 20.0, "high": 64.0},
    ],
}


def test_the_photos_that_were_learned_are_named_not_those_that_were_asked_for() -> None:
    quality = Quality(shots=16, tables={"photos": {"learned": 78, "base": 18}})
    assert (photos_learned(quality), photos_evaluated(quality)) == ("78 photos", 18)
    assert photos_learned(Quality(shots=16)) == "up to 16 photos of each class"
    assert (photos_learned(Quality(shots=0)), photos_evaluated(Quality(shots=0))) == (None, None)


def test_the_estimate_for_added_classes_in_words() -> None:
    said = expectation(ENTRY)
    assert said.startswith(
        "a class you add by its name is found in about 38 % of cases, with 1 photo in 42 % (estimate"
    )
    assert said.endswith(
        "95 % interval for the mean of 6 more classes: 14-62, 20-64); with 6 classes this is a rough guide"
    )
    assert "nothing could be measured (too few), so" in expectation(ENTRY | {"defaults": "too few"})


def test_a_bundle_and_its_card_give_the_estimate_that_training_gave(tmp_path: Path) -> None:
    tables = {"added classes": ENTRY, "photos": {"learned": 78, "base": 18}}
    bundle = open_bundle(write_sound(tmp_path / "bundle", quality=Quality("garments", "all", 16, tables=tables)))
    assert f"added later   {expectation(ENTRY)}" in describe(bundle).splitlines()
    assert "measured on   garments, all, 78 photos learned" in describe(bundle).splitlines()
    text = card(bundle.manifest, bundle.bank)
    assert "a class you add by its name is found in about 38 % of cases" in text
    assert "dataset garments, protocol all, 78 photos." in text
    assert "learned 78" not in text, "told twice"


@pytest.mark.parametrize("shots", [None, 16])
def test_the_card_says_how_it_is_installed(tmp_path: Path, shots: int | None) -> None:
    bundle = open_bundle(write_sound(tmp_path / "bundle"))
    text = card(dataclasses.replace(bundle.manifest, quality=Quality("x", shots=shots)), bundle.bank)
    assert "pip install ." in text
    assert "pip install sar-clip" not in text
