"""No novel names at all: SAR on the training names alone, through a whole run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.problems import feature_set
from support.tiny import VIT, register

from sar_train import backbone, trainer
from sar_train.config import RunConfig
from sar_train.data.features import save_features


@pytest.mark.parametrize(
    "sar", [{}, {"teacher": "ensemble"}, {"rule": "union", "subset": 3}, {"rows": "novel"}, {"anchor": 1.0}]
)
def test_a_run_on_the_training_names_alone(tmp_path: Path, sar: dict[str, object]) -> None:
    register()
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    config = RunConfig(
        data=str(tmp_path / "blobs.safetensors"),
        backbone=VIT,
        pretrained=backbone.RANDOM,
        novel="none",
        shots=2,
        epochs=2,
        batch_size=4,
        sections={"sar": sar},
    )
    record = trainer.run(config, tmp_path / "run").record
    assert record["novel"] == {"source": "none", "count": 0, "overlap": 0}
    assert "regulariser" in record["history"][-1]
    assert (record["history"][-1]["regulariser"] > 0) is (sar != {"rows": "novel"})


def test_class_specific_contexts_need_no_novel_names(tmp_path: Path) -> None:
    register()
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    config = RunConfig(
        data=str(tmp_path / "blobs.safetensors"),
        backbone=VIT,
        pretrained=backbone.RANDOM,
        protocol="all",
        shots=2,
        epochs=1,
        batch_size=4,
        sections={"coop": {"class_specific": True}},
    )
    run = trainer.run(dataclasses.replace(config, novel="none"), tmp_path / "run")
    assert run.tensors["context"].shape[0] == 8
    assert "regulariser" in run.record["history"][-1]
