"""The model behind LitServe: ``decode_request`` decodes, ``predict`` runs the batch that LitServe has collected.

The body is taken as raw bytes, which spares LitServe the multipart form and base64.
"""

# No `from __future__ import annotations`: LitServe reads the annotation of decode_request itself.

import argparse
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body

from benchmarks.serving.peers.engine import Engine, decode, setting


class Api(litserve.LitAPI):
    """Raw image bytes to the five best classes."""

    def setup(self, device: str) -> None:  # noqa: ARG002 the name is LitServe's
        """Open the session in the worker."""
        self.engine = Engine()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> np.ndarray:
        """Bytes to pixels, in the worker."""
        return decode(request)

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """As they are; the engine stacks them."""
        return inputs

    def predict(self, x: Any) -> Any:
        """One batch, or one image where batching is off."""
        return self.engine.classify(x) if isinstance(x, list) else self.engine.classify([x])[0]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """They are apart already."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return output


def main() -> None:
    """Serve on loopback."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    batch = int(setting("BATCH", "8"))
    api = Api(max_batch_size=batch, batch_timeout=float(setting("WAIT_MS", "5")) / 1000 if batch > 1 else 0.0)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=int(setting("WORKERS", "1")),
        fast_queue=setting("FAST_QUEUE", "") == "1",
        timeout=60,
    )
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
