"""The model behind mosec: a Rust front, worker processes behind it, in one stage or with decoding as a stage before.

The command line is mosec's own (``--port``, ``--address``, ``--timeout``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mosec import Server, Worker

from benchmarks.serving.peers.engine import Engine, decode, setting


class Decode(Worker):
    """Bytes to pixels; they go to the next stage pickled."""

    def deserialize(self, data: bytes) -> bytes:
        """The raw body, which comes as a bytearray."""
        return bytes(data)

    def forward(self, data: bytes) -> np.ndarray:
        """Pixels of one image."""
        return decode(data)


class Encode(Worker):
    """Pixels to the five best classes."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine()

    def forward(self, data: Any) -> Any:
        """One batch, or one image where batching is off."""
        return self.engine.classify(data) if isinstance(data, list) else self.engine.classify([data])[0]


class Whole(Encode):
    """Both in one process: nothing but the body and the answer travels."""

    def deserialize(self, data: bytes) -> np.ndarray:
        """Pixels of one image."""
        return decode(bytes(data))


def main() -> None:
    """Serve."""
    batch, workers = int(setting("BATCH", "8")), int(setting("WORKERS", "2"))
    server = Server()
    if setting("STAGES", "1") == "2":
        server.append_worker(Decode, num=workers)
        server.append_worker(Encode, max_batch_size=batch, max_wait_time=int(setting("WAIT_MS", "5")))
    else:
        wait = int(setting("WAIT_MS", "5")) if batch > 1 else 0
        server.append_worker(Whole, num=workers, max_batch_size=batch, max_wait_time=wait)
    server.run()


if __name__ == "__main__":
    main()
