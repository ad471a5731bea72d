"""Findings about photos, with the figures that the model gives."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
from support.bundles import ENCODER_DIGEST
from support.trained import example_statistics

from sar_infer.bank import ClassBank, PhotoSet, add
from sar_infer.bank_advice import photo_findings
from sar_infer.bundle.bundle import Bundle
from sar_infer.classifiers.statistics import Statistics, class_means
from sar_infer.classifiers.trained_statistics import TrainedStatistics

DIM = 64
NAMES = tuple(f"class {number}" for number in range(12))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


CENTRES = unit(np.random.default_rng(0).normal(size=(len(NAMES), DIM)))
BANK = ClassBank.of(NAMES, CENTRES, ENCODER_DIGEST)
BUNDLE = Bundle(Path(), SimpleNamespace(logit_scale=20.0), BANK)


def shots(centre: np.ndarray, count: int, seed: int, spread: float = 0.5) -> PhotoSet:
    noise = np.random.default_rng(seed).normal(size=(count, DIM)) * spread / math.sqrt(DIM)
    rows = unit(centre + noise)
    digests = [np.frombuffer(hashlib.sha256(row.tobytes()).digest(), np.uint8) for row in rows]
    return PhotoSet.of(np.array(digests), rows)


def photographed(**photos: PhotoSet) -> ClassBank:
    return add(BANK, [], np.empty((0, DIM), np.float32), photos=photos)


def filled(**changes: PhotoSet) -> ClassBank:
    sets = {name: shots(CENTRES[number], 8, number) for number, name in enumerate(NAMES)}
    return photographed(**{**sets, **changes})


def names_of(findings, kind: str) -> list[str]:
    return [finding.name for finding in findings if finding.kind == kind]


def test_few_sound_photos_are_far_and_most_of_other_classes_are() -> None:
    bank, hits = filled(), 0
    assert len(names_of(photo_findings(bank, BUNDLE), "far-photo")) <= 0.02 * 96
    for seed in range(20):
        new = shots(CENTRES[seed % 12], 3, 100 + seed)
        wrong = shots(CENTRES[(seed + 5) % 12], 1, 200 + seed)
        photos = {NAMES[seed % 12]: PhotoSet.of([*new.digests, *wrong.digests], np.concatenate([new.rows, wrong.rows]))}
        after = add(bank, [], np.empty((0, DIM), np.float32), photos=photos)
        findings = photo_findings(after, BUNDLE, bank, {wrong.digests[0]: "wrong.jpg"})
        hits += any("'wrong.jpg'" in finding.message for finding in findings)
        assert all(finding.name == NAMES[seed % 12] for finding in findings)
    assert hits >= 18


def test_the_share_is_that_of_two_gaussians() -> None:
    near = unit(CENTRES[0] + 0.14 * CENTRES[1])
    sets = {"class 0": shots(CENTRES[0], 30, 1, 0.1), "class 1": shots(near, 30, 2, 0.1)}
    bank = photographed(**sets)
    (finding,) = [one for one in photo_findings(bank, BUNDLE) if one.kind == "confused"]
    model = Statistics.default(DIM)
    means = class_means(model, CENTRES[:2], [one.rows.mean(0) for one in sets.values()], [30, 30])
    distance = math.sqrt(float(model.precision[0, 0])) * float(np.linalg.norm(means[0] - means[1])) * model.separation
    share = 100 * NormalDist().cdf(-distance / 2)
    assert {finding.name, finding.suggestion} == {"class 0", "class 1"}
    assert f"about {share:.0f} %" in finding.message


def test_a_trained_class_is_compared_by_its_means_from_training() -> None:
    trained = example_statistics(NAMES[:1], dim=DIM, separation=1.0)
    model = dataclasses.replace(
        trained.statistics, means=CENTRES[:1].copy(), precision=np.eye(DIM, dtype=np.float32) * 60, slope=0.0
    )
    trained = TrainedStatistics(trained.names, model, trained.encoder_digest)
    bank = photographed(**{"class 7": shots(CENTRES[0], 4, 3, 0.1)})
    bundle = dataclasses.replace(BUNDLE, statistics=trained)
    (finding,) = [one for one in photo_findings(bank, bundle) if one.kind == "confused"]
    assert (finding.name, finding.suggestion) == ("class 7", "class 0")
    assert not photo_findings(bank, BUNDLE)  # without statistics nothing is known of photos of class 0


def test_a_photo_that_two_classes_count_is_named() -> None:
    bank = filled()
    one = shots(CENTRES[3], 8, 3)
    first = PhotoSet.of(one.digests[:1], one.rows[:1])
    after = add(bank, [], np.empty((0, DIM), np.float32), photos={"class 4": first})
    findings = photo_findings(after, BUNDLE, bank, {first.digests[0]: "twice.jpg"})
    (shared,) = [finding for finding in findings if finding.kind == "shared-photo"]
    assert (shared.name, shared.suggestion) == ("class 4", "class 3")
    assert "'twice.jpg'" in shared.message


def test_nothing_is_said_of_what_has_not_changed() -> None:
    bank = filled(**{"class 0": shots(CENTRES[1], 8, 5)})
    assert names_of(photo_findings(bank, BUNDLE), "confused")
    assert photo_findings(bank, BUNDLE, bank) == []
    assert photo_findings(BANK, BUNDLE) == []
    single = photographed(**{"class 0": shots(CENTRES[0], 1, 5)})
    assert photo_findings(single, BUNDLE) == []


def test_photos_that_do_not_win_their_class_are_told_with_the_class_that_does() -> None:
    # two photos that look like class 1, of a class whose name says the opposite: worked out by the formula of the model
    bank = photographed(**{"class 0": shots(CENTRES[1], 2, 5, 0.1)})
    model, rows = Statistics.default(DIM, scale=20.0), bank.photos["class 0"].rows
    (mean,) = class_means(model, CENTRES[:1], rows.mean(0, keepdims=True), [2])
    logits = (
        20 * rows @ CENTRES[0] + rows @ model.precision @ mean - mean @ model.precision @ mean / 2 - model.offset(2)
    )
    assert (logits < 20 * rows @ CENTRES[1]).all()
    (finding,) = [one for one in photo_findings(bank, BUNDLE) if one.kind == "missed"]
    assert (finding.name, finding.suggestion) == ("class 0", "class 1")
    assert "wins 2 of its 2 new photos" in finding.message
    assert not names_of(photo_findings(filled(), BUNDLE), "missed")


def test_photos_of_another_class_with_photos_are_missed_too() -> None:
    before = filled(**{"class 1": shots(CENTRES[1], 30, 8, 0.1)})
    photos = shots(CENTRES[1], 2, 5, 0.1)
    after = add(before, ["odd"], unit(-CENTRES[1:2]), photos={"odd": photos})
    findings = photo_findings(after, BUNDLE, before)
    assert [(one.name, one.suggestion) for one in findings if one.kind == "missed"] == [("odd", "class 1")]
