from __future__ import annotations

import base64
from typing import Any

import httpx2
import pytest
from support.pictures import jpeg
from support.servers import Local

from sar_infer import Classifier

huggingface_hub = pytest.importorskip("huggingface_hub")
PATH = "/v1/zero-shot-image-classification"
RED = jpeg(colour=(220, 20, 20))
LABELS = ["violet", "red", "grey thing"]


@pytest.fixture(scope="module")
def client(server: Local) -> Any:
    return huggingface_hub.InferenceClient(server.url + PATH, api_key="of no use")


def post(server: Local, inputs: Any = None, **parameters: Any) -> httpx2.Response:
    inputs = base64.b64encode(RED).decode() if inputs is None else inputs
    return httpx2.post(server.url + PATH, json={"inputs": inputs, "parameters": parameters}, timeout=30)


def expected(classifier: Classifier, classes: Any) -> list[tuple[str, Any]]:
    result = classifier.classify(RED, classes, only=True, top_k=100)
    return [(p.label, pytest.approx(p.score, abs=1e-5)) for p in result.predictions]


def pairs(answer: Any) -> list[tuple[str, float]]:
    return [(item["label"], item["score"]) for item in answer]


def test_hugging_face_s_client(client: Any, classifier: Classifier) -> None:
    answer = client.zero_shot_image_classification(RED, LABELS)
    assert [(item.label, item.score) for item in answer] == expected(classifier, LABELS)
    assert sum(item.score for item in answer) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("template", ["a {} photo", "{} {0.__class__}"])
def test_a_filled_template_is_the_phrase(client: Any, classifier: Classifier, template: str) -> None:
    """Nothing else in braces is filled."""
    answer = client.zero_shot_image_classification(RED, LABELS, hypothesis_template=template)
    phrases = {label: [template.replace("{}", label)] for label in LABELS}
    assert [(item.label, item.score) for item in answer] == expected(classifier, phrases)
    assert [item.score for item in answer] != [score for _, score in expected(classifier, LABELS)]


def test_labels_as_text_with_commas(server: Local, classifier: Classifier) -> None:
    answer = post(server, candidate_labels="violet, red ,grey thing,")
    assert pairs(answer.json()) == expected(classifier, LABELS)


def test_labels_come_back_as_they_were_given(server: Local) -> None:
    answer = post(server, candidate_labels=[" Red", "grey  thing", "grey thing", "red", "teal"])
    assert sorted(label for label, _ in pairs(answer.json())) == [" Red", "grey  thing", "teal"]


def test_data_uris_single_labels_and_what_is_ignored(server: Local) -> None:
    uri = "data:image/jpeg;base64," + base64.b64encode(RED).decode()
    body = {
        "inputs": uri,
        "parameters": {"candidate_labels": ["violet"], "multi_label": False, "top_k": 1},
        "options": {"wait_for_model": True},
    }
    assert httpx2.post(server.url + PATH, json=body).json() == [{"label": "violet", "score": 1.0}]


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"candidate_labels": " , "}, 422, "parameters.candidate_labels: expected labels"),
    ({}, 422, "parameters.candidate_labels"),
    ({"candidate_labels": ["a"] * 6}, 422, "at most 5 class names"),
    ({"candidate_labels": ["red"], "multi_label": True}, 422, "fitted class model"),
    ({"candidate_labels": ["red"], "hypothesis_template": "a photo"}, 422, "with {} where the label goes"),
    ({"candidate_labels": ["red"], "hypothesis_template": "{}" * 200}, 422, "characters"),
    ({"candidate_labels": ["red"], "inputs": "?"}, 422, "inputs: not valid base64"),
    ({"candidate_labels": ["red"], "inputs": "bm8="}, 415, "inputs: not an image"),
    ({"candidate_labels": ["red"], "inputs": {"image": "bm8="}}, 422, "inputs: "),
]


@pytest.mark.parametrize(("options", "status", "message"), BAD)
def test_errors(server: Local, options: dict[str, Any], status: int, message: str) -> None:
    answer = post(server, **options)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]
