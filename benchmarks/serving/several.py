"""`sar-serve` with ``several`` against requests of five images, the crops of the same photos, in turn on one server.

    python -m benchmarks.serving.several [--seconds 20] [--rounds 5] [--clients 8]

The server has a bank of garments. Both kinds of request cost five encodings; ``several`` sends a photo once, and the
server cuts it. Prints requests a second of each round, and the ratio of the medians, which should be at least 0.95.
"""

from __future__ import annotations

import io
import itertools
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import command

CLOTHES = command.ROOT / "examples" / "clothes"


def forms(paths: list[Path]) -> dict[str, list[Any]]:
    """Return the files of requests: each photo, and its five crops."""
    from PIL import Image

    from sar_infer.images.preprocess import CROPS

    crops = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        files = []
        for left, top, right, bottom in CROPS:
            stream, (width, height) = io.BytesIO(), image.size
            box = (int(left * width), int(top * height), int(right * width), int(bottom * height))
            image.crop(box).save(stream, "JPEG", quality=90)
            files.append(("image", ("crop.jpg", stream.getvalue(), "image/jpeg")))
        crops.append(files)
    return {"several": [[("image", ("photo.jpg", path.read_bytes(), "image/jpeg"))] for path in paths], "five": crops}


def rate(url: str, requests: list[Any], clients: int, seconds: float) -> float:
    """Return answers a second of so many clients, each of which sends its next request after an answer."""
    import httpx2

    order, lock, end, counts = itertools.cycle(requests), threading.Lock(), time.perf_counter() + seconds, []

    def work() -> None:
        count = 0
        with httpx2.Client(timeout=60) as client:
            while time.perf_counter() < end:
                with lock:
                    files = next(order)
                client.post(url, files=files).raise_for_status()
                count += 1
        counts.append(count)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    args = command.options(__doc__, seconds=20.0, rounds=5, clients=8)
    from support.servers import serving

    from sar_infer import Classifier

    requests = forms(sorted((CLOTHES / "test").rglob("*.jpg"))[:60])
    with tempfile.TemporaryDirectory() as folder:
        bank = Path(folder) / "bank.safetensors"
        Classifier.from_examples(CLOTHES / "train").save(bank)
        with serving("--bank", str(bank)) as server:
            url = f"{server.url}/v1/classify"
            ways = {
                "several": lambda: rate(f"{url}?several=true", requests["several"], args.clients, args.seconds),
                "five": lambda: rate(url, requests["five"], args.clients, args.seconds),
            }
            rates = command.take_turns(ways, args.rounds)
    rows = [(name, *(f"{one:.2f}" for one in values)) for name, values in rates.items()]
    command.tell(command.markdown(("requests a second", *range(1, args.rounds + 1)), rows))
    print(f"ratio {statistics.median(rates['several']) / statistics.median(rates['five']):.3f}, expected at least 0.95")


if __name__ == "__main__":
    main()
