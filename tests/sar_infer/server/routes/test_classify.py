from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from support.bundles import BANK_NAMES, write_bundle
from support.pictures import encoded, huge_png, jpeg
from support.servers import Local, local_server
from support.trained import example_trained

from sar_infer import Classifier, Client
from sar_infer.bank import set_class
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.images.load import read_heif
from sar_infer.server.settings import Limits, Settings

RED, BLUE = jpeg(colour=(220, 20, 20)), jpeg((50, 80), (20, 30, 200))


@pytest.fixture(scope="module")
def client(server: Local) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        yield client


def raw(client: httpx2.Client, image: bytes = RED, kind: str = "image/jpeg", **query: Any) -> httpx2.Response:
    return client.post("/v1/classify", content=image, params=query, headers={"Content-Type": kind})


def predictions(answer: httpx2.Response, index: int = 0) -> list[tuple[str, float, str]]:
    assert answer.status_code == 200, answer.text
    return [(p["label"], p["score"], p["source"]) for p in answer.json()["results"][index]["predictions"]]


def expected(classifier: Classifier, image: bytes, **options: Any) -> list[tuple[str, Any, str]]:
    result = classifier.classify(image, **options)
    return [(p.label, pytest.approx(p.score, abs=1e-5), p.source) for p in result.predictions]


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2}, {"classes": ["violet", "red"]}, {"classes": ["violet"], "only": True}]
)
def test_a_raw_image_gets_what_the_classifier_says(
    client: httpx2.Client, classifier: Classifier, options: dict[str, Any]
) -> None:
    query = {**options, "mode": "only"} if options.get("only") else options
    query.pop("only", None)
    assert predictions(raw(client, **query)) == expected(classifier, RED, **options)


@pytest.mark.parametrize("classes", [["violet", "teal"], {"warm": ["red", "orange tone"], "cold": ["ice"]}])
def test_all_forms_of_a_call_answer_alike(client: httpx2.Client, classifier: Classifier, classes: Any) -> None:
    images = [base64.b64encode(RED).decode(), "data:image/jpeg;base64," + base64.b64encode(BLUE).decode()]
    answers = [client.post("/v1/classify", json={"images": images, "classes": classes, "top_k": 3})]
    if isinstance(classes, list):  # a form has no phrases
        files = [("image", ("a.jpg", RED, "image/jpeg")), ("image", ("b.jpg", BLUE, "image/jpeg"))]
        answers.append(client.post("/v1/classify", files=files, data={"classes": classes, "top_k": "3"}))
    for answer in answers:
        for index, image in enumerate((RED, BLUE)):
            assert predictions(answer, index) == expected(classifier, image, classes=classes, top_k=3)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    bundle = write_bundle(
        tmp_path_factory.mktemp("calibrated") / "bundle", trained=example_trained(unknown=np.zeros((1, 2)))
    )
    with local_server(Settings(bundle=bundle, device="cpu", threads=1, limits=Limits(images=3))) as local:
        yield local


def test_unknown_sets_and_reasons_in_every_form(calibrated: Local) -> None:
    bundle = calibrated.service.settings.bundle
    expected = Classifier.open(bundle).classify(RED, unknown=True, explain=True, coverage=0.9)
    options = {"unknown": "true", "explain": "true", "coverage": "0.9"}
    call = {"images": [base64.b64encode(RED).decode()], "unknown": True, "explain": True, "coverage": 0.9}
    before = [calibrated.metric(name) for name in ("sar_judged_total", "sar_unknown_total")]
    with httpx2.Client(base_url=calibrated.url, timeout=30) as client:
        for answer in (
            raw(client, **options),
            client.post("/v1/classify", files={"image": RED}, data=options),
            client.post("/v1/classify", files={"image": RED}, params=options),
            client.post("/v1/classify", json=call),
        ):
            (answered,) = answer.json()["results"]
            assert answered["unknown"] == pytest.approx(expected.unknown, abs=1e-5)
            assert (answered["predictions"], answered["reason"]) == ([], expected.reason)
            assert answered["label_set"] == list(expected.label_set or ())
            assert answered["explanation"]["runner_up"] == expected.explanation.runner_up
        (plain,) = raw(client).json()["results"]  # is counted, too
        assert (plain["unknown"], "reason" in plain) == (answered["unknown"], False)
        assert len(plain["predictions"]) == 4
        assert client.get("/v1/model").json()["unknown"] is True
        for answer in (
            raw(client, unknown="true", threshold="1"),
            client.post("/v1/classify", files={"image": RED}, data={"unknown": "true", "threshold": "1"}),
            client.post("/v1/classify", json={"images": call["images"], "unknown": True, "threshold": 1}),
        ):
            assert len(answer.json()["results"][0]["predictions"]) == 4
        assert raw(client, threshold="1").json()["detail"] == "a threshold is for unknown: ask for unknown too"
        assert "a class has its own threshold" in raw(client, threshold="1", several="true").json()["detail"]
    with Client(calibrated.url) as own:
        result, rejected = (own.classify(RED, unknown=True, threshold=at) for at in (1, 0))
        assert len(result.predictions) == 4 and rejected.predictions == ()
    after = [calibrated.metric(name) for name in ("sar_judged_total", "sar_unknown_total")]
    assert after == [before[0] + 10, before[1] + 6]  # four calls have a threshold of 1


IMAGE = base64.b64encode(RED).decode()


def infer(server: Local, *inputs: dict[str, Any], **call: Any) -> httpx2.Response:
    image = {"name": "IMAGE", "datatype": "BYTES", "shape": [1], "data": [IMAGE]}
    return httpx2.post(f"{server.url}/v2/models/sar-clip/infer", json={"inputs": [image, *inputs], **call})


def scores_in_other_protocols(server: Local, **parameters: Any) -> list[dict[str, float]]:
    """Return the scores by label in Open Inference Protocol and in Hugging Face's API."""
    outputs = {one["name"]: one["data"] for one in infer(server, parameters=parameters).json()["outputs"]}
    call = {"inputs": IMAGE, "parameters": {"candidate_labels": list(BANK_NAMES)}}
    labels = httpx2.post(f"{server.url}/v1/zero-shot-image-classification", json=call).json()
    by_label = dict(zip(outputs["LABELS"], outputs["SCORES"], strict=True))
    return [by_label, {one["label"]: one["score"] for one in labels}]


def test_background_is_no_answer_in_any_protocol(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "plain"))
    freeze(bundle, set_class(bundle.bank, "red", background=True), tmp_path / "bundle", command="test")
    result = Classifier.open(tmp_path / "bundle").classify(RED)
    scores = {p.label: p.score for p in result.predictions}
    assert sum(scores.values()) < 0.999
    with local_server(Settings(bundle=tmp_path / "bundle", device="cpu", threads=1)) as local:
        for parameters in ({}, {"top_k": 4}):
            assert scores_in_other_protocols(local, **parameters) == [pytest.approx(scores, abs=1e-5)] * 2
        alone = {"name": "CLASSES", "datatype": "BYTES", "shape": [1], "data": ["red"]}
        answer = infer(local, alone, parameters={"mode": "only"})
        assert (answer.status_code, "only background" in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"unknown": "true"}, "no threshold is known here"),
        ({"coverage": "0.9"}, "needs a class model"),
        ({"coverage": "nan"}, "coverage"),
        ({"coverage": "1"}, "coverage"),
        ({"unknown": "maybe"}, "unknown"),
        ({"explain": "perhaps"}, "explain"),
    ],
)
def test_confidence_that_cannot_be_had_is_refused(client: httpx2.Client, query: dict[str, str], message: str) -> None:
    answer = raw(client, **query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert message in answer.json()["detail"]
    assert "--" not in answer.json()["detail"]


def test_the_answer_says_what_answered(client: httpx2.Client, classifier: Classifier) -> None:
    answer = raw(client, classes=["violet"]).json()
    assert answer["bundle"] == classifier.bundle.manifest.digest
    assert answer["bank"] == classifier.bank.content_digest
    assert answer["classes"] == len(classifier.bank.names) + 1
    assert answer["provider"] == "CPUExecutionProvider"
    assert set(answer["timings_ms"]) == {"decode", "queue", "infer", "score"}
    (result,) = answer["results"]
    fields = [result[name] for name in ("image", "error", "error_code")]
    assert fields == ["image[0]", None, None]
    assert 0 <= result["unknown"] <= 1
    assert [p["rank"] for p in result["predictions"]] == list(range(1, len(result["predictions"]) + 1))


def problem(answer: httpx2.Response) -> tuple[int, str]:
    content = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert content["status"] == answer.status_code
    assert content["type"] == f"urn:sar-clip:problem:{content['code']}"
    assert content["title"]
    assert content["detail"]
    return answer.status_code, content["code"]


JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
BAD: list[tuple[str, Any, int, str]] = [
    ("image/jpeg", b"", 400, "bad-request"),
    ("image/jpeg", b"no image", 415, "unsupported-format"),
    ("image/jpeg", encoded(Image.new("RGB", (20, 20)), "GIF"), 415, "unsupported-format"),
    ("image/jpeg", RED[:300], 422, "undecodable-image"),
    ("image/jpeg", huge_png(1001, 1000), 413, "image-too-large"),
    ("image/jpeg", huge_png(300, 2), 413, "image-too-large"),
    ("text/plain", RED, 415, "unsupported-media-type"),
    ("application/x-www-form-urlencoded", RED, 415, "unsupported-media-type"),
    ("multipart/form-data", RED, 400, "bad-request"),
    (FORM, b"--y\r\n", 400, "bad-request"),
    (FORM, b"--x--\r\n", 400, "bad-request"),
    (JSON, b"{", 400, "bad-request"),
    (JSON, b"\xff", 400, "bad-request"),
    (JSON, [], 422, "invalid-request"),
    (JSON, {}, 422, "invalid-request"),
    (JSON, {"images": []}, 422, "invalid-request"),
    (JSON, {"images": ["aa"] * 4}, 413, "too-many-images"),
    (JSON, {"images": ["aa"], "top_k": 0}, 422, "invalid-request"),
    (JSON, {"images": ["aa"], "mode": "only"}, 422, "invalid-request"),
    (JSON, {"images": ["aa"], "mode": "bank", "classes": ["violet"]}, 422, "invalid-request"),
    (JSON, {"images": ["aa"], "classes": ["x"] * 6}, 422, "too-many-classes"),
    (JSON, {"images": ["aa"], "classes": {"a": ["p"] * 6}}, 422, "too-many-classes"),
    (JSON, {"images": ["aa"], "classes": ["x" * 257]}, 422, "bad-class-name"),
    (JSON, {"images": ["aa"], "classes": [" "]}, 422, "bad-class-name"),
    (JSON, {"images": ["aa"], "classes": ["a\0b"]}, 422, "bad-class-name"),
    (JSON, {"images": ["aa"], "classes": {"a": []}}, 422, "bad-class-name"),
    (JSON, {"images": ["aa"], "classes": [" ".join("wxyz") * 25]}, 422, "bad-class-name"),
]


@pytest.mark.parametrize(("kind", "body", "status", "code"), BAD)
def test_a_call_that_cannot_be_used_is_a_problem_whichever_way_it_takes(
    client: httpx2.Client, kind: str, body: Any, status: int, code: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    direct, routed = raw(client, content, kind), raw(client, content, kind, explain=False)
    assert problem(direct) == problem(routed) == (status, code)
    assert direct.json()["detail"] == routed.json()["detail"]


def test_a_bad_image_among_several_fails_alone(client: httpx2.Client) -> None:
    images = [RED, b"nonsense", BLUE]
    files = [("image", (f"{i}", image, "image/jpeg")) for i, image in enumerate(images)]
    answer = client.post("/v1/classify", files=files)
    assert answer.status_code == 200
    codes = [(bool(r["predictions"]), r["error_code"]) for r in answer.json()["results"]]
    assert codes == [(True, None), (False, "unsupported-format"), (True, None)]
    texts = [base64.b64encode(RED).decode(), "%%%", "https://example.org/cat.jpg"]
    results = client.post("/v1/classify", json={"images": texts}).json()["results"]
    assert [bool(r["predictions"]) for r in results] == [True, False, False]
    assert "base64" in results[1]["error"]
    assert "URLs are not fetched" in results[2]["error"]


def test_multipart_fields_are_checked_and_of_repeated_ones_the_last_counts(client: httpx2.Client) -> None:
    image = ("image", ("a.jpg", RED, "image/jpeg"))
    assert len(predictions(client.post("/v1/classify", files=[image], data={"top_k": ["1", "2"]}))) == 2
    for count in (4, 40):
        assert problem(client.post("/v1/classify", files=[image] * count)) == (413, "too-many-images")
    answer = client.post("/v1/classify", files=[image], data={"classes": ["x"] * 20})
    assert problem(answer) == (422, "too-many-classes")
    for data in ({"top_k": "many"}, {"mode": "all"}, {"colour": "red"}, {"image": "text"}):
        assert problem(client.post("/v1/classify", files=[image], data=data)) == (422, "invalid-request"), data


def test_a_misspelt_option_is_named_with_those_there_are(client: httpx2.Client) -> None:
    answer = raw(client, topk=3)
    assert problem(answer) == (422, "invalid-request")
    options = "classes, top_k, mode, unknown, threshold, coverage, explain, several"
    assert answer.json()["detail"] == f"query.topk: unknown field, perhaps top_k; expected some of {options}, bank"
    answer = client.post("/v1/classify", json={"image": ["aa"]})
    says = f"image: unknown field, perhaps images; expected some of {options}, images (and 1 more)"
    assert answer.json()["detail"] == says
    files = {"image": ("a.jpg", RED, "image/jpeg")}
    answer = client.post("/v1/classify", files=files, data={"colour": "red"})
    assert answer.json()["detail"] == f"colour: unknown field; expected some of image, {options}"
    answer = client.post("/v1/classify", files={"file": files["image"]})
    assert answer.json()["detail"] == f"file: unknown field, perhaps image; expected some of image, {options}"


@pytest.mark.parametrize("classes", ["a", 1, ["a", 1], {"a": "b"}, {"a": ["b"], "c": [1]}])
def test_classes_of_another_type_are_refused_in_one_sentence(client: httpx2.Client, classes: object) -> None:
    answer = client.post("/v1/classify", json={"images": ["aa"], "classes": classes})
    assert problem(answer) == (422, "invalid-request")
    assert answer.json()["detail"] == "classes: expected a list of names, or lists of phrases by name"


def test_wrong_method_and_unknown_route_are_problems(client: httpx2.Client) -> None:
    answer = client.get("/v1/classify")
    assert problem(answer) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    assert answer.json()["detail"] == "GET /v1/classify: use POST"
    answer = client.post("/v1/classes/red")  # each of its methods is a route of its own
    assert answer.headers["allow"] == "DELETE, GET, PATCH, PUT"
    assert answer.json()["detail"] == "POST /v1/classes/red: use DELETE, GET, PATCH or PUT"
    assert problem(client.get("/v1/nowhere")) == (404, "not-found")


def test_photos_of_phones_on_request(bundle_path: Path, classifier: Classifier, client: httpx2.Client) -> None:
    pytest.importorskip("pillow_heif", reason="needs the extra heif")
    read_heif()
    photo = Image.effect_noise((64, 48), 60).convert("RGB")
    limits = Limits(formats=("JPEG", "HEIF", "AVIF"))
    with local_server(Settings(bundle=bundle_path, device="cpu", threads=1, limits=limits)) as local:
        for form in ("HEIF", "AVIF"):
            data = encoded(photo, form)
            answer = httpx2.post(f"{local.url}/v1/classify", content=data, headers={"Content-Type": "image/heic"})
            scores = {one["label"]: one["score"] for one in answer.json()["results"][0]["predictions"]}
            assert scores == pytest.approx({p.label: p.score for p in classifier.classify(data).predictions}, abs=1e-5)
            refused = client.post("/v1/classify", content=data, headers={"Content-Type": "image/heic"}).json()
            assert refused["detail"] == f"{form} is not read, only JPEG, PNG, WEBP; convert it to JPEG"
