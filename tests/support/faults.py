"""Worker processes of the server whose decoder has flaws: some images hang it or crash it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from support.pictures import jpeg

PROCESS = "sar_infer.server.model.process"
HANGS, CRASHES, KILLED = (jpeg() + b"a decoder %s of this" % word for word in (b"hangs", b"dies", b"is killed"))
"""Sound JPEGs, but for that decoder."""


def flawed(module: ModuleType) -> None:
    """Give ``sar_infer.server.model.process`` that decoder."""
    module.decode_image = _flawed(module.decode_image)


def _flawed(real: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def decode(content: Any, *rest: Any, **more: Any) -> np.ndarray:
        if content is not None and isinstance(content, bytes):
            if content == HANGS:
                ctypes.PyDLL(None).pause()  # in C, without letting go of Python's lock
            if content == CRASHES:
                os.kill(os.getpid(), signal.SIGSEGV)
            if content == KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(content, *rest, **more)

    return decode


def hang(module: ModuleType) -> None:
    """Have a worker hang instead of starting, in C, without letting go of Python's lock."""
    module.begin = _hung


def stop(module: ModuleType) -> None:
    """Have a worker stop, as by SIGSTOP, instead of starting."""
    module.begin = _stopped


def die(module: ModuleType) -> None:
    """Have a worker die instead of starting."""
    module.begin = _died


def _hung(*_: object) -> NoReturn:
    while True:
        ctypes.PyDLL(None).pause()


def _stopped(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGSTOP)
    raise AssertionError


def _died(*_: object) -> NoReturn:
    os._exit(7)
