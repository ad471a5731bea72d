"""Photos and a list of names over HTTP, in one process and in worker processes: the scores are those of the library."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx2
import pytest
from support.servers import Server

from sar_infer import Classifier

NAMES = ["tench", "a red mug", "goldfish", "tea pot"]


def test_real_photos(either_server: Server, photos: list[Path]) -> None:
    classifier = Classifier.open(device="cpu")
    for path in photos[:4]:
        body = {"images": [base64.b64encode(path.read_bytes()).decode()], "classes": NAMES, "mode": "only"}
        (result,) = httpx2.post(f"{either_server.url}/v1/classify", json=body, timeout=30).json()["results"]
        expected = classifier.classify(path.read_bytes(), NAMES, only=True)
        scores = {p["label"]: p["score"] for p in result["predictions"]}
        assert scores == pytest.approx({p.label: p.score for p in expected.predictions}, abs=1e-4)
