"""Tasks for worker processes; each process calls one of the first functions when it is loaded."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any


def call() -> Callable[..., Any]:
    """Be ready to call whatever is sent."""
    return lambda function, *given: function(*given)


def dying() -> Callable[..., Any]:
    """Die while loading."""
    return os._exit(7)


def raising() -> Callable[..., Any]:
    """Fail while loading."""
    raise ValueError("cannot be loaded")


def hang() -> Any:
    """Wait in C, without letting go of Python's lock, as a decoder with a flaw would."""
    return ctypes.PyDLL(None).pause()


def kill() -> None:
    """End as by the system for lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    """Read what is not there."""
    ctypes.string_at(0)


class OddError(Exception):
    """Cannot be sent as it is."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} and {two}")


def odd() -> None:
    """Raise it."""
    raise OddError(1, 2)


def divide(number: int) -> float:
    """Return one share of 1."""
    return 1 / number


def ignores(number: int) -> bool:
    """Return whether this process ignores a signal."""
    return signal.getsignal(number) is signal.SIG_IGN
