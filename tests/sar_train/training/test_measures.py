"""Which photos confidence is fitted on, and which it is measured on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from support.features import altered
from support.problems import CLASSES, feature_set, scattered
from support.tiny import VIT, register, tiny_backbone

from sar_infer.classifiers.scores import negative_log_likelihood, softmax
from sar_train.clip.backbone import RANDOM
from sar_train.config.run import RunConfig
from sar_train.data.feature_file import save_features
from sar_train.training import trainer
from sar_train.training.context import prepare
from sar_train.training.prompted import restore

EACH = 30


@pytest.fixture(autouse=True)
def tiny() -> None:
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


@pytest.mark.parametrize(
    ("validation", "protocol", "fitted", "tested"),
    [
        (25, "base-to-new", 4 * 25, 4 * EACH),
        (4, "base-to-new", 4 * (EACH + 4), 4 * (EACH + 4)),  # few: all held-out photos are cross-fitted
        (EACH, "all", 8 * EACH, 8 * EACH),
    ],
)
def test_confidence_is_fitted_on_validation_photos_where_they_suffice(
    tmp_path: Path, validation: int, protocol: Any, fitted: int, tested: int
) -> None:
    config = dataclasses.replace(blurred(tmp_path, val=validation), protocol=protocol, statistics=False)
    measured = trainer.run(config, tmp_path / "run").record["calibration"]["measured"]
    assert (measured["fitted_on"], measured["measured_on"]) == (fitted, tested)
    assert measured["cross_fitted"] is (validation == 4)
    assert measured["unknown_auroc"].keys() == (set() if protocol == "all" else {"score", "energy"})


def test_a_prompt_that_depends_on_the_photo_is_judged_as_a_bundle_has_it(tmp_path: Path) -> None:
    config = dataclasses.replace(blurred(tmp_path, train=4), method="cocoop", shots=2, batch_size=2, statistics=False)
    run = trainer.run(config, tmp_path / "run")
    ready, base = restore(run, tiny_backbone()), prepare(config).task.base
    assert base is not None
    frozen, per_image = (
        ready.logits(base.features, base.class_names, frozen=way).double().numpy() for way in (True, False)
    )
    expected, other = (negative_log_likelihood(softmax(logits), base.labels.numpy()) for logits in (frozen, per_image))
    assert run.record["calibration"]["measured"]["nll_before"] == pytest.approx(expected, abs=1e-6)
    assert abs(other - expected) > 1e-4
