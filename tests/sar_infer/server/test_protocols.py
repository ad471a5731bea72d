"""One photo and one list of names, over every protocol: the scores are the same as those of ``sar_infer`` alone."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from support.servers import Server

from sar_infer import Classifier

triton = pytest.importorskip("tritonclient.http")
Scores = dict[str, float]


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    answer = httpx2.post(url + path, json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_classify(url: str, photo: bytes, names: list[str]) -> Scores:
    body = {"images": [base64.b64encode(photo).decode()], "classes": names, "mode": "only", "top_k": len(names)}
    return {p["label"]: p["score"] for p in post(url, "/v1/classify", body)["results"][0]["predictions"]}


def by_zero_shot(url: str, photo: bytes, names: list[str]) -> Scores:
    body = {"inputs": base64.b64encode(photo).decode(), "parameters": {"candidate_labels": names}}
    return {item["label"]: item["score"] for item in post(url, "/v1/zero-shot-image-classification", body)}


def by_inference_protocol(url: str, photo: bytes, names: list[str]) -> Scores:
    image = triton.InferInput("IMAGE", [1], "BYTES").set_data_from_numpy(np.array([photo], dtype=np.object_))
    encoded = np.array([name.encode() for name in names], dtype=np.object_)
    classes = triton.InferInput("CLASSES", [len(names)], "BYTES").set_data_from_numpy(encoded)
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        answer = client.infer("sar-clip", [image, classes], parameters={"mode": "only"})
    labels = [label.decode() for label in answer.as_numpy("LABELS")[0]]
    return dict(zip(labels, answer.as_numpy("SCORES")[0].tolist(), strict=True))


PROTOCOLS = [by_classify, by_zero_shot, by_inference_protocol]


def directly(classifier: Classifier, photo: bytes, names: list[str]) -> Scores:
    (result,) = classifier.classify(photo, names, only=True, top_k=len(names))
    return {p.label: p.score for p in result.predictions}


@pytest.fixture(scope="module")
def mini() -> Classifier:
    return Classifier.open(device="cpu")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_real_photos(
    either_server: Server,
    mini: Classifier,
    photos: list[Path],
    protocol: Callable[[str, bytes, list[str]], Scores],
) -> None:
    names = ["tench", "a red mug", "goldfish", "tea pot"]
    for path in photos[:4]:
        expected = directly(mini, path.read_bytes(), names)
        assert protocol(either_server.url, path.read_bytes(), names) == pytest.approx(expected, abs=1e-4)
