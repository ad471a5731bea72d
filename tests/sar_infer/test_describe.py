from __future__ import annotations

from pathlib import Path

from support.bundles import reseal

from sar_infer.artefact import Passport, Scores
from sar_infer.bundle import open_bundle
from sar_infer.describe import describe


def lines(path: Path) -> dict[str, str]:
    return {line[:14].strip(): line[14:] for line in describe(open_bundle(path)).splitlines()}


def test_what_it_is_and_how_good(bundle_copy: Path) -> None:
    passport = Passport(
        "caltech101", "base-to-new", 16, (1,), Scores(80.04, 60.0, 68.6), Scores(60.0), notes=("beware",)
    )
    reseal(bundle_copy, passport=passport)
    found = lines(bundle_copy)
    assert found["method"] == "coop with sar 1"
    assert found["classes"] == "4 in the bank"
    assert found["measured on"] == "caltech101, base-to-new, 16 shots"
    assert found["zero-shot"] == "base 60.0 %"
    assert found["this bundle"] == "base 80.0 %, new 60.0 %, harmonic mean 68.6 %"
    assert found["note"] == "beware"
    assert found["digest"] == open_bundle(bundle_copy).manifest.digest


def test_a_head_is_told(headed_path: Path, bundle_path: Path) -> None:
    assert lines(headed_path)["head"] == "for 4 of them, with a share of 0.7 beside the text branch"
    assert "head" not in lines(bundle_path)


def test_what_is_not_known_is_left_out(bundle_copy: Path) -> None:
    reseal(bundle_copy, passport=Passport(), template=None, regularisers={})
    assert lines(bundle_copy).keys().isdisjoint({"measured on", "zero-shot", "this bundle", "template", "note"})
    assert lines(bundle_copy)["method"] == "coop"
