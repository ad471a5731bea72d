"""Signals that come at a bad time, and one that comes in time."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def waiting(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals wait until the block ends; processes that are started in it never hear of them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # which new processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM if the block takes longer.

    The kernel does it, so it works whatever the block hangs in, a decoder that never lets go of Python's lock included.
    Windows has no such signal, and there no limit.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def ended_by_deadline(exit_code: int | None) -> bool:
    """Return whether a process with this exit code was ended by ``deadline``."""
    return hasattr(signal, "SIGALRM") and exit_code == -signal.SIGALRM
