"""Photos of classes over HTTP: added in every form, counted once, looked at, never given back."""

from __future__ import annotations

import base64
import io
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image
from support.bundles import BANK_NAMES
from support.servers import Local, local_server

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.server.settings import Settings

KEY = {"Authorization": "Bearer k"}
VIOLET, LIME = (140, 60, 220), (120, 230, 40)


@pytest.fixture
def server(bundle_path: Path, tmp_path: Path) -> Iterator[Local]:
    with local_server(
        Settings(bundle=bundle_path, bank=tmp_path / "bank.safetensors", key="k", device="cpu", threads=1)
    ) as local:
        yield local


@pytest.fixture
def client(server: Local) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, headers=KEY, timeout=30) as client:
        yield client


def photo(colour: tuple[int, int, int], seed: int = 0, form: str = "PNG") -> bytes:
    pixels = np.tile(np.array(colour), (32, 32, 1))
    pixels[:, :, seed % 3] += 6 if seed % 6 < 3 else -6
    pixels[seed % 32, seed // 32] -= 1
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, form, lossless=True)
    return stream.getvalue()


def files(colour: tuple[int, int, int], count: int = 4) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{n}.png", photo(colour, n), "image/png")) for n in range(count)]


def path(name: str) -> str:
    return "/v1/classes/" + urllib.parse.quote(name, safe="")


def best(client: httpx2.Client, content: bytes) -> str:
    answer = client.post("/v1/classify", content=content, headers={"Content-Type": "image/png"}).json()
    return answer["results"][0]["predictions"][0]["label"]


def test_a_class_is_added_by_a_form_of_photos_and_answers_at_once(client: httpx2.Client, tmp_path: Path) -> None:
    unseen = photo(VIOLET, 99)
    assert best(client, unseen) in BANK_NAMES
    added = client.put(path("iris"), files=files(VIOLET))
    assert (added.status_code, added.json()) == (
        201,
        {"name": "iris", "origin": "added", "phrases": ["iris"], "photos": 4, "known": 0, "findings": []},
    )
    assert best(client, unseen) == "iris"
    stored = ClassBank.verify(tmp_path / "bank.safetensors")
    assert len(stored.photos["iris"]) == 4
    assert stored.content_digest == added.headers["etag"].strip('"')


@pytest.mark.parametrize("form", ["json", "form"])
def test_photos_and_phrases_together(client: httpx2.Client, tmp_path: Path, classifier: Classifier, form: str) -> None:
    phrases = ["violet", "teal"]
    if form == "json":
        images = [base64.b64encode(photo(VIOLET, n)).decode() for n in range(2)]
        added = client.put(path("iris"), json={"phrases": phrases, "images": images})
    else:
        added = client.put(path("iris"), files=files(VIOLET, 2), data={"phrases": phrases})
    assert added.json()["phrases"] == phrases
    bank = ClassBank.load(tmp_path / "bank.safetensors")
    assert np.array_equal(bank.embeddings[-1:], classifier.embed_phrases([tuple(phrases)]))
    wanted = classifier.embed_photos([photo(VIOLET, n) for n in range(2)])
    assert bank.photos["iris"].digest_set == wanted.digest_set
    np.testing.assert_allclose(bank.photos["iris"].rows, wanted.rows, atol=1e-6)


def test_more_photos_for_a_class_that_is_there(client: httpx2.Client, tmp_path: Path) -> None:
    assert client.post(path("iris") + "/images", files=files(VIOLET)).status_code == 404
    before = client.get("/v1/classes").headers["etag"]
    added = client.post(path("RED") + "/images", content=photo(LIME), headers={"Content-Type": "image/png"})
    assert (added.status_code, added.json()["name"], added.json()["photos"]) == (200, "red", 1)
    assert added.json()["origin"] == "bundle"
    assert added.headers["etag"] != before
    again = client.post(
        path("red") + "/images", content=photo(LIME, form="WEBP"), headers={"Content-Type": "image/webp"}
    )
    assert (again.json()["known"], again.json()["photos"]) == (1, 1)
    assert again.headers["etag"] == added.headers["etag"]
    assert len(ClassBank.load(tmp_path / "bank.safetensors").history) == 1


def test_repeating_a_put_changes_nothing(client: httpx2.Client) -> None:
    first = client.put(path("iris"), files=files(VIOLET))
    second = client.put(path("iris"), files=files(VIOLET))
    assert (second.status_code, second.json()["known"], second.json()["photos"]) == (200, 4, 4)
    assert second.headers["etag"] == first.headers["etag"]
    other = client.put(path("iris"), files=files(LIME), headers={"If-Match": '"stale"'})
    assert other.status_code == 412


def test_a_photo_that_comes_twice_in_a_form_counts_once(client: httpx2.Client) -> None:
    twice = [*files(VIOLET, 2), *files(VIOLET, 1)]
    added = client.put(path("iris"), files=twice).json()
    assert (added["photos"], added["known"]) == (2, 1)


def test_photos_only(client: httpx2.Client) -> None:
    added = client.put(path("SKU-12345"), files=files(LIME), data={"photos_only": "true"})
    assert added.json()["photos_only"] is True
    assert client.get(path("SKU-12345")).json()["photos_only"] is True
    assert best(client, photo(LIME, 99)) == "SKU-12345"


def test_it_looks_before_it_takes(client: httpx2.Client) -> None:
    client.put(path("iris"), files=files(VIOLET, 6))
    etag = client.get("/v1/classes").headers["etag"]
    odd = client.put(path("iris") + "?strict=true", content=photo(LIME), headers={"Content-Type": "image/png"})
    assert (odd.status_code, odd.json()["code"]) == (409, "conflict")
    assert "image[0]" in odd.json()["detail"]
    assert client.get("/v1/classes").headers["etag"] == etag
    taken = client.put(path("iris"), content=photo(LIME), headers={"Content-Type": "image/png"}).json()
    assert [finding["kind"] for finding in taken["findings"]] == ["far-photo", "missed"]
    alike = [("image", (f"{n}.png", photo((141, 61, 221), n + 600), "image/png")) for n in range(6)]
    (finding,) = [f for f in client.put(path("lilac"), files=alike).json()["findings"] if f["kind"] == "confused"]
    assert (finding["name"], finding["suggestion"]) == ("lilac", "iris")
    assert "%" in finding["message"]


def test_rows_are_never_given_back(client: httpx2.Client, tmp_path: Path) -> None:
    added = client.put(path("iris"), files=files(VIOLET))
    rows = ClassBank.load(tmp_path / "bank.safetensors").photos["iris"].rows
    answers = [added.text, client.get("/v1/classes").text, client.get(path("iris")).text]
    answers += [client.get("/v1/bank/history").text, client.get("/v1/model").text]
    for text in answers:
        assert not any(f"{value:.4f}" in text for value in rows.reshape(-1).tolist() if abs(value) > 0.01)
    entry = json.loads(answers[2])
    assert entry == {"name": "iris", "origin": "added", "phrases": ["iris"], "photos": 4}


def test_history_and_rollback_over_http(client: httpx2.Client) -> None:
    before = client.get("/v1/classes").headers["etag"]
    client.put(path("iris"), files=files(VIOLET))
    (step,) = client.get("/v1/bank/history").json()["steps"]
    assert step["summary"] == "added 'iris', added 4 photos to 'iris'"
    assert client.post("/v1/bank/rollback", json={"to": 0}).headers["etag"] == before
    assert best(client, photo(VIOLET, 99)) in BANK_NAMES


def test_bad_input_changes_nothing(client: httpx2.Client, server: Local) -> None:
    etag = client.get("/v1/classes").headers["etag"]
    broken = [*files(VIOLET, 1), ("image", ("x.jpg", b"\xff\xd8\xff no photo", "image/jpeg"))]
    cases = [
        (client.put(path("iris"), files=broken), 415, "image[1]"),
        (client.put(path("iris"), json={"images": ["%%%"]}), 422, "image[0]"),
        (client.put(path("iris"), json={"images": []}), 422, "images"),
        (client.put(path("iris"), json={"photos_only": True}), 422, "expected images too"),
        (client.post(path("red") + "/images", json={"phrases": ["a"]}), 400, "no image"),
        (client.post(path("red") + "/images"), 400, "no image"),
        (client.put(path("iris"), files=files(VIOLET, 1), data={"colour": "x"}), 422, "unknown field"),
        (client.put(path("iris"), files=files(VIOLET, 40)), 413, "at most"),
    ]
    for answer, status, text in cases:
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
        assert text in answer.json()["detail"]
    assert httpx2.put(server.url + path("iris"), files=files(VIOLET, 1)).status_code == 401
    assert client.get("/v1/classes").headers["etag"] == etag
