"""Answer tasks in processes of their own, some at a time: memory and crash of one are no other's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from sar_infer.processes.worker import Answer, Load, Worker

_LOADING_SECONDS = 600.0
"""Seconds for a process to start and load."""


def answer_each(
    load: Load[Answer], tasks: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[int, Answer | BaseException]]:
    """Yield the number of each task with its answer, as they come, or with the error that there was.

    ``DeathError``: the process died; ``OSError``: none can be started. If the caller stops early, what runs is killed.

    Args:
        load: Called without arguments in each new process; returns what is called there with the task. It is pickled,
            and so are tasks and answers.
        tasks: The arguments of each call.
        workers: Processes at once.
    """
    living: set[Worker[Answer]] = set()
    stopped = False

    def answer(task: tuple[Any, ...]) -> Answer:
        worker = Worker(load)
        living.add(worker)
        try:
            if stopped:  # too late to be killed with the others
                worker.kill()
            worker.loaded(_LOADING_SECONDS)
            return worker.answer(task)
        finally:
            worker.ended()
            living.discard(worker)

    with ThreadPoolExecutor(workers) as threads:
        running = {threads.submit(answer, task): number for number, task in enumerate(tasks)}
        try:
            for done in as_completed(running):
                yield running[done], done.exception() or done.result()
        finally:
            stopped = True
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in [*living]:
                worker.kill()
