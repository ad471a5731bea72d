"""Worker processes of the server whose decoder has flaws: some images hang it, crash it or make it take all memory."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from support.hanging import site
from support.pictures import jpeg

from sar_infer.server.model.process import Answer, Begun, Model, Process, Task, begin

HANGS, CRASHES, GROWS = (jpeg() + b"a decoder %s of this" % word for word in (b"hangs", b"dies", b"grows fat"))
"""Sound JPEGs, but for that decoder."""


def flawed(module: ModuleType) -> None:
    """Give ``sar_infer.server.model.process`` that decoder."""
    real = module.decode_image

    def decode(content: Any, *rest: Any) -> np.ndarray:
        if content is not None and isinstance(content, bytes):
            if content == HANGS:
                ctypes.PyDLL(None).pause()  # in C, without letting go of Python's lock
            if content == CRASHES:
                os.kill(os.getpid(), signal.SIGSEGV)
            if content == GROWS:
                _ = [np.empty(2**24) for _ in range(64)]  # 8 GiB
        return real(content, *rest)

    module.decode_image = decode


SITE = site("sar_infer.server.model.process", "support.faults.flawed")


def begin_flawed(model: Model) -> Process:
    """Start as ``process.begin``, with that decoder."""
    from sar_infer.server.model import process

    flawed(process)
    return begin(model)


def begin_deadly(model: Model) -> Deadly:
    """Start as ``process.begin``, and die of every batch."""
    return Deadly(begin(model))


class Deadly:
    """A worker that tells that it is ready, and dies of whatever it is then sent."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __call__(self, tasks: Sequence[Task] | None, alone: bool = False) -> Begun | Answer:
        """Return what a sound one says of itself."""
        if tasks is not None:
            os._exit(9)
        return self._process(None)


def begin_leaking(model: Model) -> Leaking:
    """Start as ``process.begin``, and keep more memory with every batch."""
    return Leaking(begin(model))


class Leaking:
    """A worker that keeps 256 MiB of every batch."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._kept: list[bytes] = []

    def __call__(self, tasks: Sequence[Task] | None, alone: bool = False) -> Begun | Answer:
        """Answer as a sound one."""
        if tasks is not None:
            self._kept.append(b"x" * 2**28)
        return self._process(tasks, alone)


def hang(model: Model) -> NoReturn:
    """Hang instead of starting, in C, without letting go of Python's lock."""
    while True:
        ctypes.PyDLL(None).pause()


def die(model: Model) -> NoReturn:
    """Die instead of starting."""
    os._exit(7)
