"""Hold signals back for the length of a block, and end this process if a block takes too long."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def waiting(*numbers: signal.Signals) -> Iterator[None]:
    """Hold signals back until the block ends; processes that are started in it never receive them."""
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
    """End this process by SIGALRM if the block takes longer than this.

    The kernel sends the signal, so it works even if a decoder hangs and never releases Python's lock. Windows has no
    such signal, so there is no limit there.
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
