"""``sar-serve`` as a process of its own, as its users have it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from sar_infer.doors import DOORS
from sar_infer.encoders.waiting import in_background
from sar_infer.server.model.process import Result, Task
from sar_infer.server.model.workers import Processes
from sar_infer.server.run import make_server
from sar_infer.server.service import Service
from sar_infer.server.settings import Settings
from sar_infer.server.startup import bind

_READY = re.compile(r"Serving .* on (http://\S+) ")
_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server that listens."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What a request must carry."""
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    def logged(self, text: str) -> list[str]:
        """The log's lines as soon as one has ``text``: that of a request may be written after its answer has come."""
        end = time.monotonic() + _SECONDS
        while text not in (log := self.log.read_text()):
            assert time.monotonic() < end, f"no {text!r} in the log:\n{log}"
            time.sleep(0.01)
        return log.splitlines()


@dataclass(frozen=True)
class Local:
    """A server in this process, whose parts a test can reach."""

    url: str
    service: Service

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 where it was never touched."""
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0


def wait_for(condition: Callable[[], Any], seconds: float = _SECONDS) -> None:
    """Return as soon as a condition holds; fail if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def workers(pid: int) -> list[int]:
    """Return the worker processes of a server, by the identifier of its process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in _read(task / "children").split()]
    return [child for child in children if b"spawn_main" in _read(Path(f"/proc/{child}/cmdline"))]


def ready_workers(server: Local) -> set[int]:
    """Return the worker processes that are ready, of the engine that answers now."""
    return {worker.pid for worker in cast("Processes", server.service.engine.workers).supervisor.ready}


def _read(path: Path) -> bytes:
    """Return the content of a file of a thread or a process that may just have ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


Compute = Callable[[Sequence[Task]], list[Result]]


def around(server: Local, patch: pytest.MonkeyPatch, call: Callable[[Compute, Sequence[Task]], list[Result]]) -> None:
    """Have a function called, in a thread, in place of what computes a batch, be that in this process or in others.

    Args:
        server: The workers that its engine has now are meant.
        patch: Takes the change back.
        call: Is given what computes, and the tasks.
    """
    workers = server.service.engine.workers
    take = workers.take

    def taken() -> Any:
        if (real := take()) is None:
            return None

        async def called(tasks: Sequence[Task], alone: bool) -> list[Result]:
            loop = asyncio.get_running_loop()

            def compute(tasks: Sequence[Task]) -> list[Result]:
                return asyncio.run_coroutine_threadsafe(real(tasks, alone), loop).result()  # type: ignore[arg-type]

            try:
                return await asyncio.wrap_future(in_background(lambda: call(compute, tasks)))
            except RuntimeError:
                await real([], alone)  # the worker is idle again
                raise

        return called

    patch.setattr(workers, "take", taken)


@contextlib.contextmanager
def local_server(settings: Settings) -> Iterator[Local]:
    """Serve from a thread of this process until the block ends."""
    service, listener = Service(settings), bind("127.0.0.1", 0)
    server = make_server(service, [*DOORS.values()], drain=5)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield Local(f"http://127.0.0.1:{listener.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(20)
        service.close()
        listener.close()
    assert not thread.is_alive()


@contextlib.contextmanager
def serving(*arguments: str, key: str | None = None, python: tuple[str, ...] = ()) -> Iterator[Server]:
    """Run ``sar-serve`` on a free port of the loopback until the block ends; SIGTERM must then end it with 0.

    Args:
        arguments: Options of the command.
        key: ``SAR_API_KEY``.
        python: Options of the interpreter, or other code to run in place of the module.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SAR_")} | {"OMP_NUM_THREADS": "1"}
    if key is not None:
        environment["SAR_API_KEY"] = key
    command = [sys.executable, *(python or ("-m", "sar_infer.cli.serve")), "--port", "0", *arguments]
    with tempfile.TemporaryDirectory(prefix="sar-serve-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stderr=stream, stdout=stream, env=environment)
        try:
            yield Server(_url(process, log), process, log, key)
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                assert process.poll() == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        if found := _READY.search(log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"no server: exit {process.poll()}\n{log.read_text()}")
