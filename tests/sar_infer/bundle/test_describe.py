from __future__ import annotations

from pathlib import Path

from support.bundles import reseal

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.describe import describe
from sar_infer.bundle.manifest import Calibration, Parity, Quality, Scores


def lines(path: Path) -> dict[str, str]:
    return {line[:14].strip(): line[14:] for line in describe(open_bundle(path)).splitlines()}


def test_what_it_is_and_how_good(bundle_copy: Path) -> None:
    quality = Quality("caltech101", "base-to-new", 16, (1,), Scores(80.04, 60.0, 68.6), Scores(60.0), notes=("beware",))
    reseal(bundle_copy, quality=quality)
    found = lines(bundle_copy)
    size = sum(entry.size for entry in open_bundle(bundle_copy).manifest.files.values())
    assert found["bundle"] == f"{bundle_copy}, {size / 10**6:.1f} MB"
    assert found["method"] == "coop with sar 1"
    assert found["classes"] == "4 in the bank"
    assert found["measured on"] == "caltech101, base-to-new, up to 16 photos of each class learned"
    assert found["zero-shot"] == "base 60.0 %"
    assert found["this bundle"] == "base 80.0 %, new 60.0 %, harmonic mean 68.6 %"
    assert found["note"] == "beware"
    assert found["digest"] == open_bundle(bundle_copy).manifest.digest


def test_other_ways_to_answer_and_parity_with_torch(bundle_copy: Path) -> None:
    text = {"base_accuracy": 70.0, "new_accuracy": 62.0, "harmonic_mean": 65.8}
    parity = Parity(43, 0.9999998, 1.0, 77, 3e-7)
    reseal(bundle_copy, quality=Quality(parity=parity, tables={"text-branch": text}))
    found = lines(bundle_copy)
    assert found["text branch"] == "base 70.0 %, new 62.0 %, harmonic mean 65.8 %"
    assert found["parity"] == (
        "43 images: cosine to torch at least 0.9999998, same class 100.0%; 77 names: differ by at most 3.0e-07"
    )


def test_a_head_is_told(headed_path: Path, bundle_path: Path) -> None:
    assert lines(headed_path)["head"] == "for 4 of them, with a share of 0.7 beside the text branch"
    assert "head" not in lines(bundle_path)


def test_how_far_it_can_be_trusted(bundle_copy: Path) -> None:
    measured = Calibration(
        "caltech101", 800, 1549, False, 0.123, 0.021, 1.5, 1.25, {"0.9": 0.905}, {"0.9": 1.234}, {"energy": 0.8765}
    )
    reseal(
        bundle_copy,
        quality=Quality(calibration=measured),
        temperature=1.5,
        thresholds={"score": 0.25, "energy": -4.5},
        conformal={"0.9": 0.125},
        calibrated=("red", "green"),
    )
    found = lines(bundle_copy)
    assert found["temperature"] == "1.500, for 2 classes"
    assert found["unknown"] == "score below 0.250, or energy above -4.50"
    assert found["calibration"] == (
        "fitted on 800 photos; error (ECE) 12.3% before, 2.1% after, on 1549 photos; in float32"
    )
    assert found["sets"] == "coverage 0.9: 90.5% measured, 1.23 classes each"
    assert found["unknown by"] == "energy: AUROC 0.876 on classes that were new"


def test_what_is_not_known_is_left_out(bundle_copy: Path) -> None:
    reseal(bundle_copy, quality=Quality(), template=None, regularisers={})
    assert lines(bundle_copy).keys().isdisjoint({"measured on", "zero-shot", "this bundle", "template", "note"})
    assert lines(bundle_copy)["method"] == "coop"
