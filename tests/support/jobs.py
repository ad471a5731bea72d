"""Jobs that take a moment: blobs around the tiny backbone, worked off in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from support.problems import feature_set
from support.tiny import VIT, register

from sar_train import backbone
from sar_train.config import RunConfig
from sar_train.data.features import save_features
from sar_train.experiment.job import Job
from sar_train.experiment.pools import Outcome, Task, attempt


def write_blobs(folder: Path) -> RunConfig:
    """Settings of a run of a second on a feature file that is made in the folder."""
    register()
    features, names = folder / "blobs.safetensors", folder / "novel.txt"
    save_features(feature_set(), features)
    names.write_text("fox\nboat\nlamp\ngrey stone\nbird\n")
    return RunConfig(
        data=str(features),
        backbone=VIT,
        pretrained=backbone.RANDOM,
        novel=str(names),
        shots=4,
        epochs=2,
        learning_rate=0.005,
        batch_size=8,
        protocol="base-to-new",
        sections={"sar": {"subset": 4}},
    )


def job(config: RunConfig, name: str = "coop+sar", targets: tuple[str, ...] = (), **changes: Any) -> Job:
    """One run of these settings."""
    return Job("base-to-new", name, dataclasses.replace(config, **changes), targets)


def here(tasks: Sequence[Task]) -> Iterator[tuple[Job, Outcome]]:
    """A pool that is this process, one run after the other."""
    for task, folder in tasks:
        yield task, attempt(task, folder, 1)
