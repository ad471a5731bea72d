"""The server needs no torch and no network: it answers the same with both out of reach."""

from __future__ import annotations

import json

import httpx2
import pytest
from support.servers import serving

from sar_infer import Classifier

_GUARDED = """
import socket, sys
for name in ("torch", "torchvision", "open_clip", "timm", "onnx", "sar_train"):
    sys.modules[name] = None
def refuse(*arguments, **named):
    raise SystemExit("the server tried to reach the network")
for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, refuse)
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
from sar_infer.cli.serve import main
main()
"""


def test_the_server_serves_without_torch_and_without_sockets_of_its_own() -> None:
    from support.pictures import jpeg

    with serving(python=("-c", _GUARDED)) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        query = {"classes": ["a red wall", "the sea"], "mode": "only"}
        answer = client.post("/v1/classify", content=jpeg(), params=query, headers={"Content-Type": "image/jpeg"})
        expected = Classifier.open(device="cpu").classify(jpeg(), ["a red wall", "the sea"], only=True)
        predictions = answer.json()["results"][0]["predictions"]
        scores = {p["label"]: p["score"] for p in predictions}
        assert [*scores] == [p.label for p in expected.predictions]
        assert scores == pytest.approx({p.label: p.score for p in expected.predictions}, abs=1e-4)
        assert json.loads(client.get("/readyz").text)["ready"]
        for page in ("/ui", "/metrics", "/v1/classes", "/v1/model", "/openapi.json"):
            assert client.get(page).status_code == 200
