"""Jobs that take a moment, worked off in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from sar_train.config.run import RunConfig
from sar_train.experiment.job import Job
from sar_train.experiment.pools import JobOutcome, Task, attempt


def job(config: RunConfig, name: str = "coop+sar", targets: tuple[str, ...] = (), **changes: Any) -> Job:
    """One run of these settings."""
    return Job("base-to-new", name, dataclasses.replace(config, **changes), targets)


def here(tasks: Sequence[Task]) -> Iterator[tuple[Job, JobOutcome]]:
    """A pool that is this process, one run after the other."""
    for task, folder in tasks:
        yield task, attempt(task, folder)
