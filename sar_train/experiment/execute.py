"""One run from its settings to its result, in a process of its own."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sar_infer.storage.files import locked
from sar_train.clip import backbone as backbones
from sar_train.config.run import ELSEWHERE
from sar_train.errors import RunError
from sar_train.experiment import code
from sar_train.experiment.job import Job
from sar_train.experiment.known import check_zero_shot
from sar_train.experiment.similarity import similarities
from sar_train.experiment.transfer import evaluate_targets
from sar_train.training import checkpoint, trainer
from sar_train.training.checkpoint import Run
from sar_train.training.prompted import restore

SCHEMA_VERSION = 1
WITHOUT_PICTURE = ("custom", "few-shot")
"""Hundreds of files, of which no heat map is drawn."""


def execute(job: Job, folder: Path, *, threads: int = 1) -> dict[str, Any]:
    """Train, or take up what was begun, evaluate, and return the result.

    Args:
        job: the run.
        folder: where its state is kept meanwhile; a finished run stays in it.
        threads: torch threads.

    Raises:
        SarTrainError: something cannot be used.
    """
    torch.set_num_threads(threads)
    try:
        with locked(folder):
            finished = (folder / checkpoint.RECORD).is_file()
            run = checkpoint.load_run(folder) if finished else trainer.run(job.config, folder)
    except BlockingIOError:
        raise RunError(f"{folder}: another sweep is at this run; wait for it, and run the command again") from None
    return result(job, run)


def result(job: Job, run: Run) -> dict[str, Any]:
    """The run's record and what an experiment adds to it, as ``docs/report.md`` lists it."""
    config, record = job.config, dict(run.record)
    backbone = backbones.load(config.backbone, config.pretrained, device=config.device)
    prompted = restore(run, backbone)
    names = run.class_names, record["dataset"]["new_classes"]
    head = {
        "schema_version": SCHEMA_VERSION,
        "protocol": job.experiment,
        "name": job.name,
        "key": job.key(code.identity()["digest"]),
        "code": code.identity(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    tail = {
        "targets": evaluate_targets(prompted, config, job.targets) if job.targets else None,
        "similarities": None if job.experiment in WITHOUT_PICTURE else similarities(prompted, *names),
        "zero_shot_check": check_zero_shot(config, record),
    }
    del record["schema_version"]
    record["config"] = {k: v for k, v in record["config"].items() if k not in ELSEWHERE}
    return head | record | tail


def run_folder(job: Job, out: Path, key: str) -> Path:
    """Where a run's state lies while it is under way."""
    return out / job.folder / f".{job.stem}-{key}"


def keep_or_remove(folder: Path, kept: Path | None) -> None:
    """Move a finished run to where it is kept, in place of an older one, or delete it."""
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        folder.replace(kept)
