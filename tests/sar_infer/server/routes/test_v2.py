from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from support.pictures import jpeg
from support.servers import Local

from sar_infer import Classifier, __version__
from sar_infer.server.routes import v2

triton = pytest.importorskip("tritonclient.http")
RED, BLUE = jpeg(colour=(220, 20, 20)), jpeg((50, 80), (20, 30, 200))
INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def client(server: Local) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=30) as client:
        yield client


def tensor(name: str, datatype: str, values: Any, binary: bool = True) -> Any:
    values = np.array(values, dtype=np.object_ if datatype == "BYTES" else None)
    result = triton.InferInput(name, list(values.shape), datatype)
    return result.set_data_from_numpy(values, binary_data=binary)


def images(*data: bytes) -> Any:
    return tensor("IMAGE", "BYTES", list(data))


def requested(name: str, binary: bool = True) -> Any:
    return triton.InferRequestedOutput(name, binary_data=binary)


def scores(classifier: Classifier, data: list[bytes], classes: Any = None, only: bool = False) -> np.ndarray:
    """Return the classifier's scores (N, C), in the order of the classes."""
    names = classifier.class_set(classes, only).names
    ranked = [result.predictions for result in classifier.classify(data, classes, only, top_k=100)]
    return np.array([[next(p.score for p in best if p.label == name) for name in names] for best in ranked])


def labels(answer: Any) -> list[list[str]]:
    return [[text.decode() if isinstance(text, bytes) else text for text in row] for row in answer.as_numpy("LABELS")]


def test_health_and_metadata(client: Any, classifier: Classifier) -> None:
    version = classifier.bundle.manifest.digest[:12]
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata() == {
        "name": "sar-clip",
        "version": __version__,
        "extensions": ["binary_tensor_data", "parameters"],
    }
    for model in ("tiny", "sar-clip"):
        assert client.is_model_ready(model)
        metadata = client.get_model_metadata(model)
        assert (metadata["name"], metadata["versions"], metadata["platform"]) == (model, [version], "onnx_onnxv1")
    shapes = {item["name"]: (item["datatype"], item["shape"]) for item in metadata["inputs"] + metadata["outputs"]}
    assert shapes == {
        "IMAGE": ("BYTES", [-1]),
        "CLASSES": ("BYTES", [-1]),
        "SCORES": ("FP32", [-1, -1]),
        "LABELS": ("BYTES", [-1, -1]),
        "EMBEDDING": ("FP32", [-1, 8]),
    }


def test_an_unknown_model(client: Any) -> None:
    assert not client.is_model_ready("other")
    with pytest.raises(triton.InferenceServerException, match="sar-clip") as caught:
        client.infer("other", [images(RED)])
    assert caught.value.status() == "404"
    with pytest.raises(triton.InferenceServerException, match="sar-clip"):
        client.get_model_metadata("other")


def test_binary_data_both_ways_is_what_the_client_does_unasked(client: Any, classifier: Classifier) -> None:
    answer = client.infer("tiny", [images(RED, BLUE)])
    np.testing.assert_allclose(answer.as_numpy("SCORES"), scores(classifier, [RED, BLUE]), atol=1e-5)
    assert labels(answer) == [list(classifier.bank.names)] * 2
    content = answer.get_response()
    assert (content["model_name"], content["model_version"]) == ("tiny", classifier.bundle.manifest.digest[:12])
    assert [item["name"] for item in content["outputs"]] == ["SCORES", "LABELS"]
    assert all(item["parameters"]["binary_data_size"] for item in content["outputs"])


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_json_data_both_ways(client: Any, classifier: Classifier, shape: tuple[int, ...]) -> None:
    encoded = np.array([base64.b64encode(data) for data in (RED, BLUE)], dtype=np.object_).reshape(shape)
    inputs = [tensor("IMAGE", "BYTES", encoded, binary=False), tensor("CLASSES", "BYTES", [b"teal", b"red"], False)]
    outputs = [requested(name, binary=False) for name in ("LABELS", "EMBEDDING", "SCORES")]
    answer = client.infer("sar-clip", inputs, outputs=outputs, request_id="a request")
    assert answer.get_response()["id"] == "a request"
    assert labels(answer) == [list(classifier.class_set(["teal", "red"]).names)] * 2
    expected = scores(classifier, [RED, BLUE], ["teal", "red"])
    np.testing.assert_allclose(answer.as_numpy("SCORES"), expected, atol=1e-5)
    np.testing.assert_allclose(answer.as_numpy("EMBEDDING"), classifier.embed_images([RED, BLUE]), atol=1e-5)


def test_names_of_the_call_alone_and_the_best_first(client: Any, classifier: Classifier) -> None:
    names = ["teal", "red", "violet"]
    inputs = [images(RED, BLUE), tensor("CLASSES", "BYTES", [name.encode() for name in names])]
    answer = client.infer("tiny", inputs, parameters={"mode": "only", "top_k": 2})
    for i, result in enumerate(classifier.classify([RED, BLUE], names, only=True, top_k=2)):
        assert labels(answer)[i] == [p.label for p in result.predictions]
        np.testing.assert_allclose(answer.as_numpy("SCORES")[i], [p.score for p in result.predictions], atol=1e-5)


def test_an_embedding_alone_needs_no_class(client: Any, server: Local) -> None:
    before = server.metric("sar_class_sets_total", cache="miss")
    inputs = [images(RED), tensor("CLASSES", "BYTES", [b"never encoded"])]
    assert client.infer("tiny", inputs, outputs=[requested("EMBEDDING")]).as_numpy("EMBEDDING").shape == (1, 8)
    assert server.metric("sar_class_sets_total", cache="miss") == before


def test_what_an_output_says_of_binary_data_goes_before_what_the_call_says(server: Local) -> None:
    outputs = [{"name": "SCORES", "parameters": {"binary_data": False}}, {"name": "EMBEDDING"}]
    body = {"inputs": [item()], "outputs": outputs, "parameters": {"binary_data_output": True}}
    answer = httpx2.post(server.url + INFER, json=body, timeout=30)
    content = json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])["outputs"]
    assert [("data" in output, output.get("parameters")) for output in content] == [
        (True, None),
        (False, {"binary_data_size": 4 * 8}),
    ]


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        ([RED, b"no image"], "415", r"IMAGE\[1\]"),
        ([RED, RED[:300]], "422", r"IMAGE\[1\]"),
        ([RED, jpeg((2000, 1000))], "413", r"IMAGE\[1\]"),
        ([RED] * 4, "413", "3 images"),
    ],
)
def test_a_bad_image_fails_the_call_and_is_named(client: Any, data: list[bytes], status: str, message: str) -> None:
    with pytest.raises(triton.InferenceServerException, match=message) as caught:
        client.infer("tiny", [images(*data)])
    assert caught.value.status() == status


def test_what_the_client_can_ask_for_and_is_refused(client: Any) -> None:
    shared = triton.InferInput("IMAGE", [1], "BYTES").set_shared_memory("region", 10)
    output = requested("SCORES")
    output.set_shared_memory("region", 10)
    for inputs, outputs in (([shared], None), ([images(RED)], [output])):
        with pytest.raises(triton.InferenceServerException, match="shared_memory_region: Input should be null"):
            client.infer("tiny", inputs, outputs=outputs)
    with pytest.raises(triton.InferenceServerException, match="gzip") as caught:
        client.infer("tiny", [images(RED)], request_compression_algorithm="gzip")
    assert caught.value.status() == "415"
    with pytest.raises(triton.InferenceServerException, match="Not Found"):
        client.get_model_repository_index()


def item(name: str = "IMAGE", shape: Any = (1,), datatype: str = "BYTES", **rest: Any) -> dict[str, Any]:
    if not rest:
        rest = {"data": [base64.b64encode(RED).decode()]}
    return {"name": name, "shape": list(shape), "datatype": datatype, **rest}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"inputs": []}, "inputs"),
    ({"inputs": [item("CLASSES", data=["a"])]}, "inputs: expected IMAGE"),
    ({"inputs": [item(), item()]}, "'IMAGE': it is given twice"),
    ({"inputs": [item(datatype="UINT8")]}, "inputs.0.datatype: Input should be 'BYTES'"),
    ({"inputs": [item(shape=())]}, "expected shape [N] or [N, 1], got []"),
    ({"inputs": [item(shape=(2,))]}, "expected 2 texts"),
    ({"inputs": [item(data=[["a"], "b"])]}, "expected 1 texts"),
    ({"inputs": [item(data=["?"])]}, "IMAGE[0]: not valid base64"),
    ({"inputs": [item(parameters={})]}, "expected either data or binary_data_size"),
    ({"inputs": [item(parameters={"binary_data_size": 5})]}, "as many bytes after the JSON"),
    ({"inputs": [item(), item("CLASSES", (1, 2), data=["a"])]}, "'CLASSES': expected shape"),
    ({"inputs": [item(), item("CLASSES", (6,), data=["a"] * 6)]}, "at most 5 class names"),
    ({"inputs": [item()], "parameters": {"top_k": 0}}, "parameters.top_k"),
    (
        {"inputs": [item()], "outputs": [{"name": "OTHER"}]},
        "outputs.0.name: Input should be 'SCORES', 'LABELS' or 'EMBEDDING'",
    ),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_wrong_calls(server: Local, body: dict[str, Any], message: str) -> None:
    answer = httpx2.post(server.url + INFER, json=body, timeout=30)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


def binary(data: bytes, size: int | None = None, shape: Any = (1,), length: str | None = None) -> dict[str, Any]:
    size = len(data) if size is None else size
    header = json.dumps({"inputs": [item(shape=shape, parameters={"binary_data_size": size})]}).encode()
    length = str(len(header)) if length is None else length
    return {"content": header + data, "headers": {"Inference-Header-Content-Length": length}}


def prefixed(*data: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in data)


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (binary(prefixed(RED), length="x"), 400, "expected the length of the JSON"),
        (binary(prefixed(RED), length="9" * 5000), 400, "expected the length of the JSON"),
        (binary(prefixed(RED), length="10"), 400, "not JSON"),
        (binary(prefixed(RED) + b"more", size=len(RED) + 4), 400, "4 bytes of binary data belong to no input"),
        (binary(prefixed(RED), size=10**9), 422, "as many bytes after the JSON"),
        (binary(prefixed(RED)[:-1]), 422, "the data ends before 1 elements"),
        (binary(b""), 422, "the data ends before 1 elements"),
        (binary(prefixed(RED, RED)), 422, "bytes are left after 1 elements"),
        ({"content": b""}, 400, "not JSON"),
    ],
)
def test_broken_binary_bodies(server: Local, sent: dict[str, Any], status: int, message: str) -> None:
    answer = httpx2.post(server.url + INFER, timeout=30, **sent)
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_answers_of_any_size_are_not_made(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2, "_MOST_SCORES", 7)
    with pytest.raises(triton.InferenceServerException, match="top_k"):
        client.infer("tiny", [images(RED, BLUE)])
    assert client.infer("tiny", [images(RED, BLUE)], parameters={"top_k": 3}).as_numpy("SCORES").shape == (2, 3)


def test_class_names_have_to_be_utf8(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="CLASSES"):
        client.infer("tiny", [images(RED), tensor("CLASSES", "BYTES", [b"\xff\xfe"])])


def test_not_ready(client: Any, server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.service, "draining", True)
    assert client.is_server_live()
    assert not client.is_server_ready()
    assert not client.is_model_ready("tiny")
    answer = httpx2.get(f"{server.url}/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "error": "shutting down"})
