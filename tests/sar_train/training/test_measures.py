"""Which photos confidence is fitted on, and which it is measured on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from support.features import altered
from support.problems import BASE, CLASSES, feature_set, scattered
from support.tiny import VIT, register, tiny_backbone

from sar_infer.classifiers.scores import negative_log_likelihood, softmax
from sar_train.clip.backbone import RANDOM
from sar_train.config.run import RunConfig
from sar_train.data import task
from sar_train.data.feature_file import save_features
from sar_train.training import trainer
from sar_train.training.context import prepare
from sar_train.training.prompted import restore

EACH = 30


@pytest.fixture(autouse=True)
def known() -> None:
    register()


def blurred(path: Path, **counts: int) -> RunConfig:
    """Settings for classes that run into each other, with so many photos a class in each split."""
    splits: dict[str, Any] = {}
    for seed, split in enumerate(("train", "val", "test"), 1):
        labels = torch.arange(len(CLASSES)).repeat_interleave(counts.get(split, EACH))
        rows = scattered(labels.tolist(), seed, 3.0) if len(labels) else torch.empty(0, 32)
        splits[split] = rows, labels
    save_features(altered(feature_set(), splits), path / "blobs.safetensors")
    return RunConfig(
        data=str(path / "blobs.safetensors"),
        backbone=VIT,
        pretrained=RANDOM,
        sar=False,
        shots=4,
        epochs=1,
        batch_size=8,
        quick=True,
    )


def measured(config: RunConfig, out: Path) -> dict[str, Any]:
    found: dict[str, Any] = trainer.run(config, out).record["calibration"]["measured"]
    return found


def test_validation_photos_of_the_base_classes_are_fitted_on(tmp_path: Path) -> None:
    found = measured(blurred(tmp_path, val=25), tmp_path / "run")
    assert (found["fitted_on"], found["measured_on"], found["cross_fitted"]) == (4 * 25, 4 * EACH, False)
    assert found["unknown_auroc"].keys() == {"score", "energy"}


def test_with_few_of_them_all_held_out_photos_are_cross_fitted(tmp_path: Path) -> None:
    for few in (0, 4):
        found = measured(blurred(tmp_path, val=few), tmp_path / f"run{few}")
        count = 4 * (EACH + few)
        assert (found["fitted_on"], found["measured_on"], found["cross_fitted"]) == (count, count, True)
    pseudo = dataclasses.replace(blurred(tmp_path), protocol="pseudo")  # which judges on them
    assert prepare(pseudo).task.validation is None


def test_where_all_classes_are_trained_there_are_no_unknown_photos(tmp_path: Path) -> None:
    found = measured(dataclasses.replace(blurred(tmp_path), protocol="all"), tmp_path / "run")
    assert (found["measured_on"], found["unknown_auroc"]) == (8 * EACH, {})


def test_of_many_validation_photos_some_are_taken_the_same_ones_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "MOST_VALIDATION", 50)
    config = blurred(tmp_path)
    first, again = prepare(config).task.validation, prepare(dataclasses.replace(config, seed=2)).task.validation
    assert first is not None
    assert again is not None
    assert torch.equal(first.rows, again.rows)
    assert len(first.rows.unique()) == 50
    labels = prepare(config).features.labels("val")[first.rows]
    assert torch.equal(labels, first.labels)
    assert int(labels.max()) < len(BASE)


def test_a_prompt_that_depends_on_the_photo_is_judged_as_a_bundle_has_it(tmp_path: Path) -> None:
    config = dataclasses.replace(blurred(tmp_path, train=4), method="cocoop", shots=2, batch_size=2, statistics=False)
    run = trainer.run(config, tmp_path / "run")
    ready, part = restore(run, tiny_backbone()), prepare(config).task.base
    assert part is not None
    frozen, per_image = (
        ready.logits(part.features, part.class_names, frozen=way).double().numpy() for way in (True, False)
    )
    expected, other = (negative_log_likelihood(softmax(found), part.labels.numpy()) for found in (frozen, per_image))
    assert run.record["calibration"]["measured"]["nll_before"] == pytest.approx(expected, abs=1e-6)
    assert abs(other - expected) > 1e-4
