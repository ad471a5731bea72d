"""Calls into native code that may never return.

They run in a thread of their own. Whoever waits for it still gets signals, can give up after a time, and can leave the
process, which a native call would otherwise hold.
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
"""What opening a graph, or a first run of it, may take. A healthy one needs a few seconds on a slow machine."""
_STOP_SECONDS = 2.0
_TURN_SECONDS = 0.1


def in_background(call: Callable[[], T]) -> concurrent.futures.Future[T]:
    """Start a call in a daemon thread, which does not keep the process alive.

    Returns:
        What becomes of it, for ``waited``; it cannot be cancelled.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # whoever waits is told
            future.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return future


def waited(future: concurrent.futures.Future[T], seconds: float = math.inf) -> T:
    """Return what became of a call.

    Signals are minded meanwhile. The kernel may deliver one to any thread, which does not wake the main thread, and
    only that runs Python's handlers; so it does not sleep for long.

    Raises:
        TimeoutError: nothing became of it within so many seconds.
    """
    end = time.monotonic() + seconds
    while not future.done():
        if (left := end - time.monotonic()) <= 0:
            raise TimeoutError
        concurrent.futures.wait([future], min(left, _TURN_SECONDS))
    return future.result()


def within(seconds: float, call: Callable[[], T], stop: Callable[[], object]) -> T:
    """Return what a call gives, or give it up.

    Args:
        seconds: The limit.
        call: Runs in a thread of its own.
        stop: Asks the call to end, where the limit has passed or a signal ends the waiting. A call that does not end
            goes on in its thread until the process ends.

    Raises:
        TimeoutError: the limit has passed.
    """
    future = in_background(call)
    try:
        return waited(future, seconds)
    finally:
        if not future.done():
            stop()
            if concurrent.futures.wait([future], _STOP_SECONDS).not_done:
                atexit.register(leave, 2)  # Python's own way out aborts where a native call still runs


def leave(code: int) -> NoReturn:
    """End the process at once, whatever still runs in its threads."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):  # none there, or in use, or gone
            stream.flush()
    os._exit(code)
