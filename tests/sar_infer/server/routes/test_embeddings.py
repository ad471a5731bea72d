from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from support.pictures import jpeg
from support.servers import Local

from sar_infer import Classifier
from sar_infer.text.tokenizer import encode_name

RED, BLUE = jpeg(colour=(220, 20, 20)), jpeg((50, 80), (20, 30, 200))
IMAGE = {"modality": "image"}


def text(image: bytes, uri: bool = False) -> str:
    return "data:image/jpeg;base64," * uri + base64.b64encode(image).decode()


@pytest.fixture(scope="module")
def client(server: Local) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def rows(client: openai.OpenAI, inputs: Any, form: str | None = None, **extra: Any) -> np.ndarray:
    options = {} if form is None else {"encoding_format": form}
    answer = client.embeddings.create(model="any", input=inputs, extra_body=extra, **options)
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    if form == "base64":
        return np.array([np.frombuffer(base64.b64decode(item.embedding), "<f4") for item in answer.data])
    return np.array([item.embedding for item in answer.data])


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_rows_are_those_of_the_classifier(client: openai.OpenAI, classifier: Classifier, form: str | None) -> None:
    names = ["violet", "grey thing", "violet"]
    np.testing.assert_allclose(rows(client, names, form), classifier.embed_names(names), atol=1e-7)
    images = [text(RED), text(BLUE, uri=True)]
    np.testing.assert_allclose(rows(client, images, form, **IMAGE), classifier.embed_images([RED, BLUE]), atol=1e-5)
    np.testing.assert_array_equal(rows(client, names).astype(np.float32), rows(client, names, "base64"))


def test_a_single_input_needs_no_list(client: openai.OpenAI, classifier: Classifier) -> None:
    np.testing.assert_allclose(rows(client, "violet"), classifier.embed_names(["violet"]), atol=1e-7)
    np.testing.assert_allclose(rows(client, text(RED), **IMAGE), classifier.embed_images(RED), atol=1e-5)


def test_objects_say_what_they_are_and_keep_their_place(client: openai.OpenAI, classifier: Classifier) -> None:
    embeddings = rows(client, [{"image": text(RED)}, {"text": "violet"}, {"image": text(BLUE)}, "teal"])
    names, images = classifier.embed_names(["violet", "teal"]), classifier.embed_images([RED, BLUE])
    np.testing.assert_allclose(embeddings, [images[0], names[0], images[1], names[1]], atol=1e-5)


def test_the_answer_repeats_the_model_and_counts_tokens(client: openai.OpenAI, classifier: Classifier) -> None:
    names = ["violet", "grey thing"]
    answer = client.embeddings.create(model="text-embedding-3-small", input=names, user="someone", dimensions=8)
    bundle = classifier.bundle
    tokens = sum(len(encode_name(bundle.tokenizer, bundle.manifest.tokenizer, name)) for name in names)
    assert (answer.object, answer.model) == ("list", "text-embedding-3-small")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
    images = client.embeddings.create(model="m", input=text(RED), extra_body=IMAGE)
    assert images.usage.total_tokens == 0


BAD = [
    ([1, 2], {}, 422, "invalid-request", "token numbers are not accepted"),
    ([], {}, 422, "invalid-request", "input: expected at least one"),
    (["violet", " "], {}, 422, "bad-class-name", "input[1]: class name ' ' is empty"),
    (["a b c d e f g h i j k l m n o p q r s t"], {}, 422, "bad-class-name", "too long"),
    (["a"] * 6, {}, 422, "too-many-classes", "at most 5 texts"),
    (["violet"], {"dimensions": 3}, 422, "invalid-request", "dimensions: expected 8, the model's own, got 3"),
    (["violet"], {"encoding_format": "int8"}, 422, "invalid-request", "encoding_format"),
    ([{"text": "a", "image": "b"}], {}, 422, "invalid-request", "input[0]: expected either text or image"),
    ([text(RED), "no base64!"], IMAGE, 422, "undecodable-image", "input[1]: not valid base64"),
    ([text(RED), text(RED[:300])], IMAGE, 422, "undecodable-image", "input[1]: cannot be read"),
    (["violet", {"image": text(b"GIF89a")}], {}, 415, "unsupported-format", "input[1]: GIF is not read, only JPEG"),
    ([text(RED)] * 4, IMAGE, 413, "too-many-images", "at most 3 images"),
]


@pytest.mark.parametrize(("inputs", "extra", "status", "code", "message"), BAD)
def test_errors_are_those_of_openai(
    client: openai.OpenAI, inputs: Any, extra: dict[str, Any], status: int, code: str, message: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model="m", input=inputs, extra_body=extra)
    error = caught.value
    assert (error.status_code, error.code, error.type) == (status, code, "invalid_request_error")
    assert isinstance(error.body, dict)
    assert message in error.body["message"]


def test_a_body_that_is_no_json(server: Local) -> None:
    answer = httpx2.post(f"{server.url}/v1/embeddings", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx2.get(f"{server.url}/v1/embeddings").json()["error"]["code"] == "method-not-allowed"


def test_a_key_is_asked_for_in_openai_s_words(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.service, "settings", replace(server.service.settings, key="secret"))
    options = {"base_url": f"{server.url}/v1", "max_retries": 0}
    with openai.OpenAI(api_key="wrong", **options) as client, pytest.raises(openai.AuthenticationError):
        client.embeddings.create(model="m", input="violet")
    with openai.OpenAI(api_key="secret", **options) as client:
        assert len(client.embeddings.create(model="m", input="violet").data) == 1
