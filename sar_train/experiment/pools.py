"""Execute runs, each in a process of its own.

A pool takes (job, folder) pairs and yields each job with its result, or with one line saying why there is none, as they
finish. If the system kills a run, for memory say, only that run fails.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sar_infer.processes.alone import answer_each
from sar_infer.processes.worker import DeathError
from sar_train.errors import SarTrainError
from sar_train.experiment.execute import execute
from sar_train.experiment.job import Job

JobOutcome = dict[str, Any] | str
Task = tuple[Job, Path]
Pool = Callable[[Sequence[Task]], Iterator[tuple[Job, JobOutcome]]]


def local(workers: int) -> Pool:
    """Return a pool of processes on this machine, ``workers`` at a time."""

    def execute_all(tasks: Sequence[Task]) -> Iterator[tuple[Job, JobOutcome]]:
        for number, answer in answer_each(_begin, tasks, workers):  # one each, so that peak memory is the run's own
            outcome = (
                answer if not isinstance(answer, BaseException) else f"no process can run it: {answer}; fewer --jobs?"
            )
            if isinstance(answer, DeathError):
                outcome = f"{answer}; -9 is mostly too little memory: fewer --jobs"
            yield tasks[number][0], outcome

    return execute_all


def _begin() -> Callable[[Job, Path], JobOutcome]:
    return attempt


def attempt(job: Job, folder: Path) -> JobOutcome:
    """Return the result or one line saying why there is none; an unexpected error's traceback goes to stderr too."""
    try:
        return execute(job, folder)
    except SarTrainError as error:
        return " ".join(str(error).split())
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
