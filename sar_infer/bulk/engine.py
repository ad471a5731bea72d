"""Answer chunks in processes of this machine, even if a file or an image crashes one of them.

Each process reads one chunk at a time, decodes, encodes and ranks in one thread, and its rows are written here. If it
dies, a new one continues there. If that dies too, as when an image crashes its decoder, the next one reads
one input at a time; the input at which it dies is set aside. A process that takes too long to decode one image ends
itself (``signals.deadline``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

from sar_infer.bulk.chunks import Chunk
from sar_infer.bulk.containers import Flaw
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.rows import RowFormat, flawed
from sar_infer.bulk.store import Store
from sar_infer.bulk.worker import AnsweredRows, WorkerOptions, begin
from sar_infer.errors import DeviceError, SarInferError, reason_of
from sar_infer.processes.worker import DeathError, TimeLimitError, Worker

_LONGEST = 300.0
"""Seconds for the next rows of a chunk: a file may hang its reader."""
_LOADING = 600.0
_MOST_STARTS = 3


class Runner:
    """One process that answers chunks, replaced when it dies; one thread uses it.

    Args:
        options: How to answer.
        form: The form of the rows.
    """

    def __init__(self, options: WorkerOptions, form: RowFormat) -> None:
        self._options, self._form = options, form
        self._worker: Worker[AnsweredRows | None] | None = None
        self._stopped = False

    def write(self, chunk: Chunk, store: Store, progress: Progress) -> None:
        """Answer a chunk and write its part.

        Raises:
            WriteError: the part cannot be written.
            SarInferError: the encoder fails, or no process can start.
        """
        inputs = 0

        def rows() -> Iterator[Any]:
            nonlocal inputs
            for answer in self._rows(chunk):
                progress.count(answer.inputs, answer.rejected)
                inputs += answer.inputs
                yield answer.packed

        store.put(part_name(chunk, self._form), lambda stream: self._form.write(stream, rows()))
        progress.keep(inputs)

    def stop(self) -> None:
        """End the process, whatever it is doing, and start no other."""
        self._stopped = True
        if (worker := self._worker) is not None:
            worker.kill()

    def close(self) -> None:
        """End the process when it has nothing to do."""
        if self._worker is not None:
            self._worker.ended()
            self._worker = None

    def _rows(self, chunk: Chunk) -> Iterator[AnsweredRows]:
        done = careful = 0  # inputs that are answered; up to which number they are answered one at a time
        died = -1  # how many inputs were answered when a process last died of no time limit
        flaws: dict[int, Flaw] = {}
        task: tuple[Any, ...] = (chunk, done, careful, flaws)
        while True:
            try:
                answer = self._ready().answer(task)
            except SarInferError:
                raise
            except Exception as error:
                if isinstance(error, DeathError):
                    self._worker = None
                if self._stopped:
                    raise
                if done >= careful:
                    if died == done or type(error) is not DeathError:
                        careful = done + self._options.batch_size
                    died = done  # perhaps of a kill from outside: the same batch again, with the same rows to the bit
                elif done not in flaws:
                    flaws[done] = self._flaw(error)
                elif chunk.container:  # it dies while it reads the file
                    item = chunk.rest(done, self._flaw(error).reason)
                    row = flawed(item.key, item.source, self._form.columns)  # type: ignore[arg-type]
                    yield AnsweredRows(self._form.pack([row]), 1, 1)
                    return
                else:
                    raise DeviceError(f"a worker fails, whatever it is given: {reason_of(error)}") from None
                task = (chunk, done, careful, flaws)
            else:
                if answer is None:
                    return
                yield answer
                done += answer.inputs
                task = ()

    def _flaw(self, error: Exception) -> Flaw:
        if isinstance(error, TimeLimitError):
            return Flaw("timeout", f"took more than {self._options.image_timeout:g} s to decode (image-timeout)")
        what = "died: memory, or its decoder" if isinstance(error, DeathError) else f"failed: {reason_of(error)}"
        return Flaw("crash", f"the process that read it {what}")

    def _ready(self) -> Worker[AnsweredRows | None]:
        """Return the process, which is started if there is none.

        Raises:
            SarInferError: it cannot start.
        """
        starts = 0
        while self._worker is None or not self._worker.alive:
            try:
                self._worker = Worker(partial(begin, self._options, self._form), _LONGEST)
                if self._stopped:
                    self._worker.kill()
                self._worker.loaded(_LOADING)
            except SarInferError:
                raise
            except Exception as error:
                self._worker = None
                starts += 1
                if self._stopped or starts == _MOST_STARTS or not isinstance(error, DeathError):
                    raise DeviceError(
                        f"no worker can start: {reason_of(error)}; too little memory? Try fewer --workers"
                    ) from None
        return self._worker


def part_name(chunk: Chunk, form: RowFormat) -> str:
    """Return the name of a chunk's part."""
    return f"part-{chunk.number:06}{form.suffix}"


def run_local(
    chunks: Iterable[Chunk], options: WorkerOptions, form: RowFormat, store: Store, workers: int, progress: Progress
) -> None:
    """Write the parts of chunks with several processes; each takes the next chunk when it is done with one.

    Args:
        chunks: The chunks, taken as they are needed.
        options: How to answer.
        form: The form of the parts.
        store: The output.
        workers: Processes.
        progress: Notified of inputs and parts.

    Raises:
        WriteError: a part cannot be written.
        SarInferError: the encoder fails, or no process can start.
    """
    remaining, lock = iter(chunks), threading.Lock()
    runners = [Runner(options, form) for _ in range(workers)]

    def work(runner: Runner) -> None:
        while True:
            with lock:
                chunk = next(remaining, None)
            if chunk is None:
                break
            runner.write(chunk, store, progress)
        runner.close()

    with ThreadPoolExecutor(workers) as threads:
        try:
            for future in as_completed([threads.submit(work, runner) for runner in runners]):
                future.result()
        except BaseException:
            for runner in runners:
                runner.stop()
            raise
