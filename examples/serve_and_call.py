"""Start a server, classify a photo over HTTP, and add a class while it runs.

python examples/serve_and_call.py [FOLDER]      after train_and_export.py with the same FOLDER
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

from sar_infer import Client, ServerError

CLOTHES = Path(__file__).parent / "clothes"
SHOE = CLOTHES / "test" / "shoes" / "00.jpg"


def main(folder: Path) -> None:
    """Serve the bundle until three requests are answered."""
    port, key = free_port(), secrets.token_urlsafe(24)
    command = [
        "sar-serve",
        "--bundle",
        f"{folder}/bundle",
        "--bank",
        f"{folder}/served.safetensors",
        "--port",
        str(port),
    ]
    with subprocess.Popen(command, env=os.environ | {"SAR_API_KEY": key}) as server:
        try:
            with Client(f"http://localhost:{port}", key=key) as client:
                wait_until_ready(client)
                show(client)
                client.add("shoes", phrases=["shoe", "a pair of shoes"])
                show(client)
                client.remove("shoes")
        finally:
            server.terminate()


def wait_until_ready(client: Client, seconds: float = 60) -> None:
    """Return when the server has run its model once; give up after some time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if client.ready():
                return
        except ServerError:  # nobody listens yet
            time.sleep(0.2)
    sys.exit(f"the server is not ready after {seconds:.0f} s")


def show(client: Client) -> None:
    """Classify the photo of a shoe and print the two best names."""
    result = client.classify(SHOE, top_k=2)
    print(", ".join(f"{prediction.label} {prediction.score:.2f}" for prediction in result.predictions), flush=True)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
    if not (folder / "bundle").is_dir():
        sys.exit(f"{folder / 'bundle'} is missing; make it with: python examples/train_and_export.py {folder}")
    main(folder)
