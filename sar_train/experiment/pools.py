"""Pools that execute runs, each in a process of its own: on this machine, or on a Ray cluster.

A pool takes (job, folder) pairs and yields each job with its result, or with one line saying why there is none, as they
finish. A run that is killed, by the system for memory say, fails alone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread
from typing import Any

from sar_train.errors import ConfigError, SarTrainError
from sar_train.experiment.execute import execute
from sar_train.experiment.job import Job

Outcome = dict[str, Any] | str
Task = tuple[Job, Path]
Pool = Callable[[Sequence[Task]], Iterator[tuple[Job, Outcome]]]


def local(workers: int, threads: int) -> Pool:
    """Return a pool of processes on this machine: ``workers`` at a time with ``threads`` torch threads each."""
    return partial(_local, workers=workers, threads=threads)


def _local(tasks: Sequence[Task], workers: int, threads: int) -> Iterator[tuple[Job, Outcome]]:
    pool, processes = ThreadPoolExecutor(workers), set[SpawnProcess]()
    try:
        running = {pool.submit(_in_process, job, folder, threads, processes): job for job, folder in tasks}
        for done in as_completed(running):
            yield running[done], done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in tuple(processes):
            process.terminate()


def _in_process(job: Job, folder: Path, threads: int, processes: set[SpawnProcess]) -> Outcome:
    context = get_context("spawn")  # a fresh process, so that peak memory is the run's own
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, job, folder, threads), daemon=True)
    process.start()
    processes.add(process)
    sender.close()
    try:
        outcome: Outcome = receiver.recv()
    except EOFError:
        process.join()
        return f"the process died (exit code {process.exitcode}); -9 is mostly too little memory: fewer --jobs"
    finally:
        processes.discard(process)
    process.join()
    return outcome


def _child(sender: Connection, job: Job, folder: Path, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    Thread(target=_end_with_parent, daemon=True).start()
    sender.send(attempt(job, folder, threads))


def _end_with_parent() -> None:
    """End this process when the sweep has ended, even if it was killed."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def attempt(job: Job, folder: Path, threads: int) -> Outcome:
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
        import ray
    except ModuleNotFoundError:
        raise ConfigError("--ray needs Ray: pip install 'sar-clip[experiment,ray]'") from None
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"--ray {address}: no cluster there ({reason}); start one with `ray start --head`") from None
    return partial(_on_ray, threads=threads)


def _on_ray(tasks: Sequence[Task], threads: int) -> Iterator[tuple[Job, Outcome]]:
    import ray

    remote = ray.remote(num_cpus=threads, max_retries=2, max_calls=1)(_anywhere)
    running = {
        remote.options(num_gpus=int(job.config.device.startswith("cuda"))).remote(job, threads): job for job, _ in tasks
    }
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        job = running.pop(done)
        try:
            outcome: Outcome = ray.get(done)
        except ray.exceptions.RayError as error:
            outcome = " ".join(str(error).split())[:300]
        yield job, outcome


def _anywhere(job: Job, threads: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        return attempt(job, Path(folder) / "run", threads)
