from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from support.banks import unit_rows
from support.pictures import jpeg
from support.servers import Local, local_server

from sar_infer import ClassBank, Classifier, __version__
from sar_infer.bundle.bundle import open_bundle
from sar_infer.doors import open_inference
from sar_infer.server.settings import Settings

RED, BLUE = jpeg(colour=(220, 20, 20)), jpeg((50, 80), (20, 30, 200))
INFER = "/v2/models/tiny/infer"


def tensor(name: str, values: list[Any], shape: Any = None) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(values)], "datatype": "BYTES", "data": values}


def images(*data: bytes) -> dict[str, Any]:
    return tensor("IMAGE", [base64.b64encode(one).decode() for one in data])


def post(server: Local, *inputs: Any, model: str = "tiny", outputs: tuple[str, ...] = (), **call: Any) -> Any:
    body = {"inputs": inputs, "outputs": [{"name": name} for name in outputs], **call}
    return httpx2.post(f"{server.url}/v2/models/{model}/infer", json=body, timeout=30)


def arrays(answer: Any) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer.json()["outputs"]}


def scores(classifier: Classifier, data: list[bytes], classes: Any = None, only: bool = False) -> np.ndarray:
    """Return the classifier's scores (N, C), in the order of the classes."""
    names = classifier.class_set(classes, only).names
    ranked = [result.predictions for result in classifier.classify(data, classes, only, top_k=100)]
    return np.array([[next(p.score for p in best if p.label == name) for name in names] for best in ranked])


def test_health_and_metadata(server: Local, classifier: Classifier) -> None:
    version = classifier.bundle.manifest.digest[:12]
    with httpx2.Client(base_url=server.url + "/v2") as client:
        assert client.get("/health/live").json() == {"live": True}
        assert client.get("/health/ready").json() == {"ready": True}
        metadata = {"name": "sar-clip", "version": __version__, "extensions": ["parameters"]}
        assert httpx2.get(f"{server.url}/v2").json() == metadata
        for model in ("tiny", "sar-clip"):
            assert client.get(f"/models/{model}/ready").json() == {"name": model, "ready": True}
            metadata = client.get(f"/models/{model}").json()
            assert (metadata["name"], metadata["versions"], metadata["platform"]) == (model, [version], "onnx_onnxv1")
    shapes = {item["name"]: (item["datatype"], item["shape"]) for item in metadata["inputs"] + metadata["outputs"]}
    assert shapes == {
        "IMAGE": ("BYTES", [-1]),
        "CLASSES": ("BYTES", [-1]),
        "SCORES": ("FP32", [-1, -1]),
        "LABELS": ("BYTES", [-1, -1]),
        "EMBEDDING": ("FP32", [-1, 8]),
    }


def test_an_unknown_model(server: Local) -> None:
    for answer in (
        httpx2.get(f"{server.url}/v2/models/other/ready"),
        httpx2.get(f"{server.url}/v2/models/other"),
        post(server, images(RED), model="other"),
    ):
        assert answer.status_code == 404
        assert answer.json() == {"error": "no model 'other'; expected tiny or sar-clip"}


def test_scores_and_labels_by_default(server: Local, classifier: Classifier) -> None:
    answer = post(server, images(RED, BLUE))
    content, result = answer.json(), arrays(answer)
    np.testing.assert_allclose(result["SCORES"], scores(classifier, [RED, BLUE]), atol=1e-5)
    assert result["LABELS"].tolist() == [list(classifier.bank.names)] * 2
    assert (content["model_name"], content["model_version"]) == ("tiny", classifier.bundle.manifest.digest[:12])
    assert [*result] == ["SCORES", "LABELS"]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_names_of_the_call_and_embeddings(server: Local, classifier: Classifier, shape: tuple[int, ...]) -> None:
    call = images(RED, BLUE) | {"shape": shape}
    if len(shape) == 2:
        call["data"] = [[text] for text in call["data"]]
    names = ("LABELS", "EMBEDDING", "SCORES")
    answer = post(server, call, tensor("CLASSES", ["teal", "red"]), model="sar-clip", outputs=names, id="a request")
    result = arrays(answer)
    assert (answer.json()["id"], tuple(result)) == ("a request", names)
    assert result["LABELS"].tolist() == [list(classifier.class_set(["teal", "red"]).names)] * 2
    np.testing.assert_allclose(result["SCORES"], scores(classifier, [RED, BLUE], ["teal", "red"]), atol=1e-5)
    np.testing.assert_allclose(result["EMBEDDING"], classifier.embed_images([RED, BLUE]), atol=1e-5)


def test_names_of_the_call_alone_and_the_best_first(server: Local, classifier: Classifier) -> None:
    names = ["teal", "red", "violet"]
    parameters = {"mode": "only", "top_k": 2}
    result = arrays(post(server, images(RED, BLUE), tensor("CLASSES", names), parameters=parameters))
    for i, expected in enumerate(classifier.classify([RED, BLUE], names, only=True, top_k=2)):
        assert result["LABELS"][i].tolist() == [p.label for p in expected.predictions]
        np.testing.assert_allclose(result["SCORES"][i], [p.score for p in expected.predictions], atol=1e-5)


def test_an_embedding_alone_needs_no_class(server: Local) -> None:
    before = server.metric("sar_class_sets_total", cache="miss")
    answer = post(server, images(RED), tensor("CLASSES", ["never encoded"]), outputs=("EMBEDDING",))
    assert arrays(answer)["EMBEDDING"].shape == (1, 8)
    assert server.metric("sar_class_sets_total", cache="miss") == before


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        ([RED, b"no image"], 415, "IMAGE[1]"),
        ([RED, RED[:300]], 422, "IMAGE[1]"),
        ([RED, jpeg((2000, 1000))], 413, "IMAGE[1]"),
        ([RED] * 4, 413, "3 images"),
    ],
)
@pytest.mark.parametrize("outputs", [(), ("EMBEDDING",)])
def test_a_bad_image_fails_the_call_and_is_named(
    server: Local, data: list[bytes], status: int, message: str, outputs: tuple[str, ...]
) -> None:
    answer = post(server, images(*data), outputs=outputs)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True)


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        (
            {"Inference-Header-Content-Length": "9"},
            400,
            "binary tensor data is not supported; send the tensors as JSON",
        ),
        ({"Content-Encoding": "gzip"}, 415, "not compressed"),
    ],
)
def test_extensions_that_clients_know_are_refused(
    server: Local, headers: dict[str, str], status: int, message: str
) -> None:
    answer = httpx2.post(server.url + INFER, content=b'{"inputs":[]}rest', headers=headers)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True)


IMAGE = images(RED)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"inputs": []}, "inputs"),
    ({"inputs": [tensor("CLASSES", ["a"])]}, "inputs: expected IMAGE"),
    ({"inputs": [IMAGE, IMAGE]}, "'IMAGE': it is given twice"),
    ({"inputs": [IMAGE | {"datatype": "UINT8"}]}, "inputs.0.datatype: Input should be 'BYTES'"),
    ({"inputs": [IMAGE | {"shape": []}]}, "expected shape [N] or [N, 1], got []"),
    ({"inputs": [IMAGE | {"shape": [2]}]}, "expected 2 texts"),
    ({"inputs": [IMAGE | {"data": [["a"], "b"]}]}, "expected 1 texts"),
    ({"inputs": [IMAGE | {"data": ["?"]}]}, "IMAGE[0]: not valid base64"),
    ({"inputs": [{"name": "IMAGE", "shape": [1], "datatype": "BYTES"}]}, "inputs.0.data: Field required"),
    ({"inputs": [IMAGE, tensor("CLASSES", ["a"], (1, 2))]}, "'CLASSES': expected shape"),
    ({"inputs": [IMAGE, tensor("CLASSES", ["a"] * 6)]}, "at most 5 class names"),
    ({"inputs": [IMAGE], "parameters": {"top_k": 0}}, "parameters.top_k"),
    (
        {"inputs": [IMAGE], "outputs": [{"name": "OTHER"}]},
        "outputs.0.name: Input should be 'SCORES', 'LABELS' or 'EMBEDDING'",
    ),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_wrong_calls(server: Local, body: dict[str, Any], message: str) -> None:
    answer = httpx2.post(server.url + INFER, json=body, timeout=30)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


def test_answers_of_any_size_are_not_made(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_inference, "_MOST_SCORES", 7)
    answer = post(server, images(RED, BLUE))
    assert (answer.status_code, "ask for top_k" in answer.json()["error"]) == (422, True)
    assert arrays(post(server, images(RED, BLUE), parameters={"top_k": 3}))["SCORES"].shape == (2, 3)


def test_a_bank_that_is_named_like_the_bundle(bundle_path: Path, tmp_path: Path) -> None:
    """A model is a bank of its name first; another name of the bundle is the bank of --bank."""
    bank = open_bundle(bundle_path).bank
    for name in ("tiny", "shop"):
        ClassBank.of([name], unit_rows([name], bank.dim), bank.encoder_digest).save(tmp_path / f"{name}.safetensors")
    settings = Settings(bundle=bundle_path, banks=tmp_path, bank=tmp_path / "shop.safetensors", device="cpu", threads=1)
    with local_server(settings) as local:
        for model, expected in (("tiny", ["tiny"]), ("sar-clip", ["shop"]), ("shop", ["shop"])):
            assert arrays(post(local, images(RED), model=model))["LABELS"].tolist() == [expected]
        (tmp_path / "tiny.safetensors").unlink()
        assert arrays(post(local, images(RED)))["LABELS"].tolist() == [["shop"]]


def test_not_ready(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.service, "draining", True)
    for path in ("health/ready", "models/tiny/ready"):
        answer = httpx2.get(f"{server.url}/v2/{path}")
        assert (answer.status_code, answer.json()["error"]) == (503, "shutting down")
    assert httpx2.get(f"{server.url}/v2/health/live").json() == {"live": True}
