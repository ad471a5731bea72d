"""Calls into native code that may never return.

Each runs in its own thread. The caller still gets signals while waiting, can give up after a time, and can end the
process, which a native call would otherwise block.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")
TRIAL_SECONDS = 60.0
"""Limit for opening a graph, or for its first run. A healthy one needs a few seconds on a slow machine."""
_STOP_SECONDS = 2.0
_TURN_SECONDS = 0.1


def in_background(call: Callable[[], T]) -> concurrent.futures.Future[T]:
    """Start a call in a daemon thread, which does not keep the process alive.

    Returns:
        Its future, for ``waited``; it cannot be cancelled.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # raised again in ``waited``
            future.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return future


def waited(future: concurrent.futures.Future[T], seconds: float = math.inf) -> T:
    """Return the result of a call, or raise its error, and handle signals while waiting.

    The kernel may deliver a signal to any thread, which does not wake the main thread, and only the main thread runs
    Python's handlers; so it never sleeps for long.

    Raises:
        TimeoutError: The call has not ended within the given time.
    """
    end = time.monotonic() + seconds
    while not future.done():
        if (left := end - time.monotonic()) <= 0:
            raise TimeoutError
        concurrent.futures.wait([future], min(left, _TURN_SECONDS))
    return future.result()


def within(seconds: float, call: Callable[[], T], stop: Callable[[], object]) -> T:
    """Return the result of a call that may take a limited time.

    Args:
        seconds: The limit.
        call: Runs in its own thread.
        stop: Asks the call to end when the limit has passed or a signal ends the waiting. A call that ignores it runs
            on in its thread until the process ends.

    Raises:
        TimeoutError: The limit has passed.
    """
    future = in_background(call)
    try:
        return waited(future, seconds)
    finally:
        if not future.done():
            stop()
            if concurrent.futures.wait([future], _STOP_SECONDS).not_done:
                atexit.register(leave, 2)  # Python's normal exit aborts while a native call runs


def leave(code: int) -> NoReturn:
    """End the process at once, even if threads are still running."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):  # absent, in use or closed
            stream.flush()
    os._exit(code)
