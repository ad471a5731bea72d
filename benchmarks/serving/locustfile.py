"""Clients for locust: most classify the bank's way, some with names of their own, and something asks for health.

::

    locust -f benchmarks/serving/locustfile.py --host http://localhost:8000 --headless --users 8 --run-time 30s

``SAR_API_KEY`` is the server's key, ``SAR_PHOTOS`` a folder of photos; without it noise of three sizes is sent.
Whatever is not answered with predictions counts as a failure; refusals because of load (429) have a name of their own.
"""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
from locust import FastHttpUser, between, task
from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SIDES = (256, 512, 1280)
NAMES = ("latte art", "teapot", "red mug", "spoon", "paper cup", "saucer", "kettle", "bowl of soup")


def photos() -> list[bytes]:
    """Return the photos to send."""
    if folder := os.environ.get("SAR_PHOTOS"):
        images = [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in SUFFIXES]
        if not images:
            raise SystemExit(f"SAR_PHOTOS: {folder} holds no photo")
        return images
    return [noise(side) for side in SIDES]


def noise(side: int) -> bytes:
    """A JPEG of smooth noise, about as large as a photo of that side."""
    coarse = np.random.default_rng(side).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()


PHOTOS = photos()


class Classifying(FastHttpUser):
    """Sends a photo, reads the answer, sends the next."""

    wait_time = between(0, 0.02)

    def on_start(self) -> None:
        """Take the key."""
        key = os.environ.get("SAR_API_KEY")
        self.auth = {} if key is None else {"Authorization": f"Bearer {key}"}

    @task(7)
    def bank(self) -> None:
        """A raw photo, the bank's classes."""
        self._classify("/v1/classify", "bank")

    @task(3)
    def names(self) -> None:
        """A raw photo and three names, which many clients share."""
        classes = "&".join(f"classes={name.replace(' ', '%20')}" for name in random.sample(NAMES, 3))
        self._classify(f"/v1/classify?{classes}&mode=only", "names")

    @task(1)
    def health(self) -> None:
        """Ask for health, as a balancer does."""
        self.client.get("/healthz")
        self.client.get("/readyz")

    def _classify(self, path: str, name: str) -> None:
        headers = {"Content-Type": "application/octet-stream", **self.auth}
        photo = random.choice(PHOTOS)
        request: dict[str, Any] = {"data": photo, "headers": headers, "name": name, "catch_response": True}
        with self.client.post(path, **request) as response:
            if response.status_code == 429:
                response.failure("429 overloaded")
            elif response.status_code != 200 or not response.json()["results"][0]["predictions"]:
                response.failure(f"{response.status_code} {response.text!r:.200}")
