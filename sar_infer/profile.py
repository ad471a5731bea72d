"""The profile of a call: the time of its phases."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Profile:
    """Seconds of each phase, summed over calls and threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time spent inside the ``with`` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
