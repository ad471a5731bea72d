"""Pools that execute runs, each in a process of its own: on this machine, or on a Ray cluster.

A pool takes (job, folder) pairs and yields each job with its result, or with one line saying why there is none, as they
finish. If the system kills a run, for memory say, only that run fails.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sar_infer.errors import InputError, install
from sar_infer.processes.alone import answer_each
from sar_infer.processes.cluster import connect
from sar_infer.processes.worker import DeathError
from sar_train.errors import ConfigError, SarTrainError
from sar_train.experiment.execute import execute
from sar_train.experiment.job import Job

JobOutcome = dict[str, Any] | str
Task = tuple[Job, Path]
Pool = Callable[[Sequence[Task]], Iterator[tuple[Job, JobOutcome]]]


def local(workers: int, threads: int) -> Pool:
    """Return a pool of processes on this machine: ``workers`` at a time with ``threads`` torch threads each."""
    return partial(_local, workers=workers, threads=threads)


def _local(tasks: Sequence[Task], workers: int, threads: int) -> Iterator[tuple[Job, JobOutcome]]:
    calls = [(job, folder, threads) for job, folder in tasks]
    for number, answer in answer_each(_begin, calls, workers):  # one each, so that peak memory is the run's own
        outcome = answer if not isinstance(answer, BaseException) else f"no process can run it: {answer}; fewer --jobs?"
        if isinstance(answer, DeathError):
            outcome = f"{answer}; -9 is mostly too little memory: fewer --jobs"
        yield tasks[number][0], outcome


def _begin() -> Callable[[Job, Path, int], JobOutcome]:
    return attempt


def attempt(job: Job, folder: Path, threads: int) -> JobOutcome:
    """Return the result or one line saying why there is none; an unexpected error's traceback goes to stderr too."""
    try:
        return execute(job, folder, threads=threads)
    except SarTrainError as error:
        return " ".join(str(error).split())
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"


def on_ray(address: str, threads: int) -> Pool:
    """Return a pool on a Ray cluster: as many runs at a time as it has GPUs, or CPUs for ``threads`` each.

    Data and cache folders must be at the same paths on all nodes; results come back to this machine.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        connect(address, "--ray", f"--ray needs Ray: {install('experiment,ray')}")
    except InputError as error:
        raise ConfigError(str(error)) from None
    return partial(_on_ray, threads=threads)


def _on_ray(tasks: Sequence[Task], threads: int) -> Iterator[tuple[Job, JobOutcome]]:
    import ray

    remote = ray.remote(num_cpus=threads, max_retries=2, max_calls=1)(_anywhere)
    running = {
        remote.options(num_gpus=int(job.config.device.startswith("cuda"))).remote(job, threads): job for job, _ in tasks
    }
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        job = running.pop(done)
        try:
            outcome: JobOutcome = ray.get(done)
        except ray.exceptions.RayError as error:
            outcome = " ".join(str(error).split())[:300]
        yield job, outcome


def _anywhere(job: Job, threads: int) -> JobOutcome:
    with tempfile.TemporaryDirectory() as folder:
        return attempt(job, Path(folder) / "run", threads)
