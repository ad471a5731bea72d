"""The summary of a bundle, and the sentences in it about photos learned and classes added later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from support.bundles import ENCODER_DIGEST, reseal
from support.rich_bundle import write_rich_bundle
from support.sound import change
from support.trained import example_statistics

from sar_infer.bundle.bundle import Bundle, open_bundle
from sar_infer.bundle.card import card
from sar_infer.bundle.describe import describe
from sar_infer.bundle.figures import expectation, photos_evaluated, photos_learned
from sar_infer.bundle.manifest import STATISTICS, Parity, Quality, Scores

ESTIMATE = {
    "classes": 6,
    "defaults": None,
    "expected": [
        {"photos": 0, "accuracy": 38.2, "low": 14.1, "high": 62.4},
        {"photos": 1, "accuracy": 41.9, "low": 20.0, "high": 64.0},
    ],
}


def lines(bundle: Bundle) -> dict[str, str]:
    return {line[:14].strip(): line[14:] for line in describe(bundle).splitlines()}


def test_everything_that_a_bundle_can_say(tmp_path: Path) -> None:
    path = write_rich_bundle(tmp_path / "rich")
    example_statistics().save(path / STATISTICS)
    change(path, statistics=STATISTICS)
    bundle = open_bundle(path)
    size = sum(entry.size for entry in bundle.manifest.files.values()) / 1e6
    assert describe(bundle).splitlines() == [
        f"bundle        {path}, {size:.1f} MB",
        "backbone      tiny",
        "method        coop with sar 1",
        "template      a photo of a {}.",
        "classes       5 in the bank",
        "head          for 4 of them, with a share of 0.7 beside the text branch",
        "statistics    of 12 photos of 3 classes, with a weight of 0.3 beside the text branch",
        "embedding     8 numbers, logit scale 20",
        "image         32 pixels, shortest",
        "class name    at most 18 tokens",
        "measured on   nothing, all, up to 16 photos of each class learned",
        "zero-shot     base 30.0 %",
        "this bundle   base 50.0 %, new 40.0 %, harmonic mean 44.4 %",
        "note          a test",
        "temperature   1.500, for 4 classes",
        "unknown       score below 0.100, or energy above 5.00",
        "calibration   fitted on 20 photos; error (ECE) 10.0% before, 5.0% after, on 20 photos, cross-fitted; in "
        "float32",
        "sets          coverage 0.9: 91.0% measured, 1.50 classes each",
        "unknown by    score: AUROC 0.800 on classes that were new",
        "int8 images   dynamic; 10 photos: cosine 1.0000, at least 1.0000, same class 100.0%; 2.00 times as fast",
        "int8 names    dynamic; 10 names: cosine 1.0000, at least 1.0000, same class 100.0%; 2.00 times as fast",
        f"digest        {bundle.manifest.digest}",
        f"encoder       {ENCODER_DIGEST}",
        "created       2000-01-01T00:00:00Z",
        "by            tests",
    ]


def test_other_ways_to_answer_and_parity_with_torch(bundle_copy: Path) -> None:
    text = {"base_accuracy": 70.0, "new_accuracy": 62.0, "harmonic_mean": 65.8}
    tables = {"text-branch": text, "per-image": text | {"new_accuracy": None}}
    reseal(bundle_copy, quality=Quality(parity=Parity(43, 0.9999998, 1.0, 77, 3e-7), tables=tables))
    summary = lines(open_bundle(bundle_copy))
    assert summary["per image"] == "base 70.0 %, harmonic mean 65.8 %"
    assert summary["text branch"] == "base 70.0 %, new 62.0 %, harmonic mean 65.8 %"
    assert summary["parity"] == (
        "43 images: cosine to torch at least 0.9999998, same class 100.0%; 77 names: differ by at most 3.0e-07"
    )


def test_a_bundle_that_says_little(bundle_copy: Path) -> None:
    reseal(bundle_copy, quality=Quality(), template=None, regularisers={})
    summary = lines(open_bundle(bundle_copy))
    assert summary["method"] == "coop"
    absent = {"measured on", "zero-shot", "this bundle", "template", "note", "head", "statistics"}
    assert summary.keys().isdisjoint(absent)


def test_learned_photos_are_counted_as_they_were_and_not_as_they_were_asked_for() -> None:
    quality = Quality(shots=16, tables={"photos": {"learned": 78, "base": 18}})
    assert (photos_learned(quality), photos_evaluated(quality)) == ("78 photos", 18)
    assert photos_learned(Quality(shots=16)) == "up to 16 photos of each class"
    assert (photos_learned(Quality(shots=0)), photos_evaluated(Quality(shots=0))) == (None, None)


def test_a_bundle_and_its_card_give_the_estimate_for_added_classes(bundle_path: Path) -> None:
    sentence = (
        "a class you add by its name is found in about 38 % of cases, with 1 photo in 42 % (estimate for 6 added "
        "classes and photos of the same kind, from trained classes left out in turn; 95 % interval for the mean of 6 "
        "more classes: 14-62, 20-64); with 6 classes this is a rough guide"
    )
    assert expectation(ESTIMATE) == sentence
    assert "nothing could be measured (too few), so" in expectation(ESTIMATE | {"defaults": "too few"})
    tables = {"added classes": ESTIMATE, "photos": {"learned": 78, "base": 18}}
    quality = Quality("garments", "all", 16, metrics=Scores(50.0), tables=tables)
    bundle = open_bundle(bundle_path)
    measured = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, quality=quality))
    assert lines(measured)["added later"] == sentence
    assert lines(measured)["measured on"] == "garments, all, 78 photos learned"
    text = card(measured.manifest, measured.bank)
    assert "a class you add by its name is found in about 38 % of cases" in text
    assert "dataset garments, protocol all, 78 photos." in text
    assert "learned 78" not in text, "told twice"
