"""No novel names at all: SAR on the training names alone, through a whole run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.blobs import write_blobs

from sar_train.training import trainer


@pytest.mark.parametrize(
    "sar", [{}, {"teacher": "ensemble"}, {"rule": "union", "subset": 3}, {"rows": "novel"}, {"anchor": 1.0}]
)
def test_a_run_on_the_training_names_alone(tmp_path: Path, sar: dict[str, object]) -> None:
    config = dataclasses.replace(write_blobs(tmp_path), novel="none", sections={"sar": sar})
    record = trainer.run(config, tmp_path / "run").record
    assert record["novel"] == {"source": "none", "count": 0, "overlap": 0}
    assert "regulariser" in record["history"][-1]
    assert (record["history"][-1]["regulariser"] > 0) is (sar != {"rows": "novel"})


def test_class_specific_contexts_need_no_novel_names(tmp_path: Path) -> None:
    own = {"coop": {"class_specific": True}}
    config = dataclasses.replace(write_blobs(tmp_path), novel="none", protocol="all", sections=own)
    run = trainer.run(config, tmp_path / "run")
    assert run.tensors["context"].shape[0] == 8
    assert "regulariser" in run.record["history"][-1]
