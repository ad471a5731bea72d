"""Classes over HTTP: listed, added by name or by photos, changed, removed, and taken back."""

from __future__ import annotations

import base64
import contextlib
import io
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from support.bundles import BANK_NAMES, name_rows
from support.pictures import jpeg
from support.servers import Local, local_server, wait_for

from sar_infer import Classifier
from sar_infer.bank import BankCalibration, ClassBank, add, calibrate, set_class
from sar_infer.bundle import bank_file
from sar_infer.bundle.bundle import open_bundle
from sar_infer.server.settings import Settings

KEY = {"Authorization": "Bearer k"}
PNG = {"Content-Type": "image/png"}
VIOLET, LIME = (140, 60, 220), (120, 230, 40)


def path(name: str) -> str:
    return "/v1/classes/" + urllib.parse.quote(name, safe="")


def listed(client: httpx2.Client, **query: Any) -> list[str]:
    return [entry["name"] for entry in client.get("/v1/classes", params=query).json()["classes"]]


def etag(client: httpx2.Client) -> str:
    return client.get("/v1/classes").headers["etag"]


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def photo(colour: tuple[int, int, int], seed: int = 0, form: str = "PNG") -> bytes:
    pixels = np.tile(np.array(colour), (32, 32, 1))
    pixels[:, :, seed % 3] += 6 if seed % 6 < 3 else -6
    pixels[seed % 32, seed // 32] -= 1
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, form, lossless=True)
    return stream.getvalue()


def files(colour: tuple[int, int, int], count: int = 4) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{n}.png", photo(colour, n), "image/png")) for n in range(count)]


def best(client: httpx2.Client, content: bytes) -> str:
    answer = client.post("/v1/classify", content=content, headers=PNG).json()
    return answer["results"][0]["predictions"][0]["label"]


@pytest.fixture
def stored(bank_server: Local) -> Path:
    """Return the path of the server's bank file."""
    assert bank_server.service.settings.bank is not None
    return bank_server.service.settings.bank


# ------------------------------------------------------------------------------------------------------------ by name
def test_a_class_is_added_used_and_removed(client: httpx2.Client, stored: Path, classifier: Classifier) -> None:
    added = client.put(path("violet"))
    shown = {"name": "violet", "origin": "added", "phrases": ["violet"], "findings": []}
    assert (added.status_code, added.json()) == (201, shown)
    again = client.put(path(" VIOLET "))
    assert (again.status_code, again.headers["etag"]) == (200, added.headers["etag"])
    assert listed(client) == [*BANK_NAMES, "violet"]
    answer = client.post("/v1/classify?top_k=9", content=jpeg(), headers={"Content-Type": "image/jpeg"}).json()
    sources = {p["label"]: p["source"] for p in answer["results"][0]["predictions"]}
    assert sources == dict.fromkeys([*BANK_NAMES, "violet"], "bank")
    bank = ClassBank.load(stored)
    assert np.array_equal(bank.embeddings[-1:], classifier.embed_names(["violet"]))
    assert answer["bank"] == bank.content_digest == added.headers["etag"].strip('"')
    other = client.put(path("violet"), json={"phrases": ["mauve", "lilac"]})
    assert (other.status_code, other.json()["phrases"]) == (200, ["mauve", "lilac"])
    assert client.get(path("violet")).json()["phrases"] == ["mauve", "lilac"]
    assert other.headers["etag"] != added.headers["etag"]
    removed = client.delete(path("violet"))
    assert (removed.status_code, removed.content) == (204, b"")
    assert listed(client) == list(BANK_NAMES)
    assert client.get(path("violet")).json()["code"] == "not-found"


def test_removed_classes_are_listed_until_they_are_back(client: httpx2.Client) -> None:
    for name in ("green", "violet", "Red"):
        client.put(path(name))
        assert client.delete(path(name)).status_code == 204
    answer = client.get("/v1/classes", params={"removed": True}).json()
    entries = [{"name": name, "origin": "bundle", "phrases": [name]} for name in ("red", "green")]
    assert (answer["classes"], answer["count"], answer["removed"]) == (entries, 2, 2)
    assert listed(client, removed=True, prefix="r") == listed(client, removed=True, limit=1) == ["red"]
    client.put(path("green"))
    assert listed(client, removed=True) == ["red"]
    client.put(path("red"))
    assert client.get("/v1/classes").json()["removed"] == 0


def test_the_list_is_told_in_parts(client: httpx2.Client) -> None:
    assert listed(client, prefix="GR") == ["green", "grey thing"]
    assert listed(client, like="Y t") == ["grey thing"]
    assert listed(client, prefix="g", like="e", offset=1) == ["grey thing"]
    assert listed(client, limit=2, offset=1) == list(BANK_NAMES[1:3])
    page = client.get("/v1/classes", params={"limit": 1}).json()
    assert (len(page["classes"]), page["count"]) == (1, len(BANK_NAMES))
    assert client.get("/v1/classes", params={"limit": 0}).status_code == 422


def test_a_name_that_is_not_there_comes_with_the_one_that_may_be_meant(client: httpx2.Client, stored: Path) -> None:
    for refused in (
        client.get(path("gren")),
        client.delete(path("Gren")),
    ):
        assert refusal(refused) == (404, "not-found")
        assert refused.json()["detail"].lower().endswith("no class 'gren' in the bank; did you mean 'green'?")
    assert client.get(path("zeppelin")).json()["detail"] == "no class 'zeppelin' in the bank"


def test_an_alias_names_its_class(client: httpx2.Client, stored: Path) -> None:
    client.put(path("violet"))
    set_class(ClassBank.load(stored), "violet", aliases=("lilac",)).save(stored)
    assert client.get(path("Lilac")).json()["name"] == "violet"
    assert client.delete(path("lilac")).status_code == 204
    assert "violet" not in ClassBank.load(stored).names


def test_an_odd_name_is_pointed_out_or_refused(client: httpx2.Client) -> None:
    assert refusal(client.put(path("R-ed") + "?strict=true")) == (409, "conflict")
    assert listed(client) == list(BANK_NAMES)
    (finding,) = client.put(path("R-ed")).json()["findings"]
    assert (finding["kind"], finding["name"], finding["suggestion"]) == ("duplicate", "R-ed", "red")
    assert client.put(path("R-ed")).json()["findings"] == []  # it is there already
    assert client.put(path("red"), json={"phrases": ["scarlet"]}).json()["findings"] == []


@pytest.mark.parametrize("name", ["a/b", "?x=1", "#1", "crème brûlée", "日本", "x;y", "a/images/b", "red/images"])
def test_any_name_fits_into_a_path(client: httpx2.Client, name: str) -> None:
    assert client.put(path(name)).json()["name"] == name
    assert client.get(path(name)).json()["name"] == name
    assert name in listed(client)
    assert client.delete(path(name)).status_code == 204


@pytest.mark.parametrize("name", ["a%0Ab", "%0Aa", "a%0A", "a%09b", "a%00", "%20", "x" * 300, "w " * 200])
def test_a_name_that_no_class_can_have_is_refused_by_all_methods(client: httpx2.Client, name: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert refusal(client.request(method, "/v1/classes/" + name)) == (422, "bad-class-name"), method
    detail = client.put("/v1/classes/red%0A").json()["detail"]
    assert detail.endswith("contains a control character or a lone surrogate; leave it out")
    assert listed(client) == list(BANK_NAMES)


# ---------------------------------------------------------------------------------------------------------- by photos
def test_a_class_is_added_by_a_form_of_photos_and_answers_at_once(client: httpx2.Client, stored: Path) -> None:
    unseen = photo(VIOLET, 99)
    assert best(client, unseen) in BANK_NAMES
    added = client.put(path("iris"), files=[*files(VIOLET), *files(VIOLET, 1)])  # one of them twice
    entry = {"name": "iris", "origin": "added", "phrases": ["iris"], "photos": 4}
    assert (added.status_code, added.json()) == (201, {**entry, "known": 1, "moved": [], "findings": []})
    assert best(client, unseen) == "iris"
    bank = ClassBank.load(stored)
    assert bank.content_digest == added.headers["etag"].strip('"')
    assert client.get(path("iris")).json() == entry
    assert len(bank.photos["iris"]) == 4
    again = client.put(path("iris"), files=files(VIOLET))
    assert (again.status_code, again.json()["known"], again.json()["photos"]) == (200, 4, 4)
    assert again.headers["etag"] == added.headers["etag"]


@pytest.mark.parametrize("form", ["json", "form"])
def test_photos_and_phrases_together(client: httpx2.Client, stored: Path, classifier: Classifier, form: str) -> None:
    phrases = ["violet", "teal"]
    if form == "json":
        images = [base64.b64encode(photo(VIOLET, n)).decode() for n in range(2)]
        added = client.put(path("iris"), json={"phrases": phrases, "images": images})
    else:
        added = client.put(path("iris"), files=files(VIOLET, 2), data={"phrases": phrases})
    assert added.json()["phrases"] == phrases
    bank = ClassBank.load(stored)
    assert np.array_equal(bank.embeddings[-1:], classifier.embed_phrases([tuple(phrases)]))
    expected = classifier.embed_photos([photo(VIOLET, n) for n in range(2)])
    assert bank.photos["iris"].digest_set == expected.digest_set
    np.testing.assert_allclose(bank.photos["iris"].rows, expected.rows, atol=1e-6)


def test_more_photos_for_a_class_that_is_there(client: httpx2.Client) -> None:
    absent = client.put(path("iris"), files=files(VIOLET), headers={"If-Match": "*"})
    assert refusal(absent) == (412, "precondition-failed")
    before, steps = etag(client), client.get("/v1/bank/history").json()["count"]
    added = client.put(path("RED"), content=photo(LIME), headers={**PNG, "If-Match": "*"})
    assert (added.status_code, added.json()["name"], added.json()["photos"]) == (200, "red", 1)
    assert added.json()["origin"] == "bundle"
    assert added.headers["etag"] != before
    webp = {"Content-Type": "image/webp"}
    again = client.put(path("red"), content=photo(LIME, form="WEBP"), headers=webp)
    assert (again.json()["known"], again.json()["photos"]) == (1, 1)
    assert again.headers["etag"] == added.headers["etag"]
    assert client.get("/v1/bank/history").json()["count"] == steps + 1


def test_photos_only(client: httpx2.Client) -> None:
    added = client.put(path("SKU-12345"), files=files(LIME), data={"photos_only": "true"})
    assert added.json()["photos_only"] is True
    assert client.get(path("SKU-12345")).json()["photos_only"] is True


def test_it_looks_before_it_takes(client: httpx2.Client) -> None:
    client.put(path("lime"), files=files(LIME, 6))
    before = client.put(path("iris"), files=files(VIOLET, 6)).headers["etag"]
    odd = client.put(path("iris") + "?strict=true", content=photo(LIME, 9), headers=PNG)
    assert refusal(odd) == (409, "conflict")
    assert "image[0]" in odd.json()["detail"]
    assert etag(client) == before
    answer = client.put(path("iris"), content=photo(LIME, 9), headers=PNG).json()
    assert [(finding["kind"], finding["suggestion"]) for finding in answer["findings"]] == [("wrong-class", "lime")]


def test_bad_input_changes_nothing(client: httpx2.Client, bank_server: Local) -> None:
    before = etag(client)
    broken = [*files(VIOLET, 1), ("image", ("x.jpg", b"\xff\xd8\xff no photo", "image/jpeg"))]
    cases = [
        (client.put(path("iris"), files=broken), 415, "image[1]"),
        (client.put(path("iris"), json={"images": ["%%%"]}), 422, "image[0]"),
        (client.put(path("iris"), json={"images": []}), 422, "images"),
        (client.put(path("iris"), json={"photos_only": True}), 422, "expected images too"),
        (client.put(path("iris"), json={"phrases": []}), 422, "phrases"),
        (client.put(path("iris"), json={"phrase": ["x"]}), 422, "unknown field, perhaps phrases"),
        (client.put(path("iris"), json={"phrases": [" "]}), 422, "is empty"),
        (
            client.put(path("iris"), content=b"{", headers={"Content-Type": "application/x-www-form-urlencoded"}),
            400,
            "not JSON",
        ),
        (client.put(path("iris"), content=b"x", headers={"Content-Type": "text/plain"}), 415, "application/json"),
        (client.put(path("iris"), files=files(VIOLET, 1), data={"colour": "x"}), 422, "unknown field"),
        (client.put(path("iris"), files=files(VIOLET, 40)), 413, "at most"),
        (client.put(path("iris"), files=files(LIME), headers={"If-Match": '"stale"'}), 412, "in the meantime"),
    ]
    for answer, status, text in cases:
        assert refusal(answer)[0] == status, answer.text
        assert text in answer.json()["detail"]
    assert httpx2.put(bank_server.url + path("iris"), files=files(VIOLET, 1)).status_code == 401
    assert etag(client) == before


# ------------------------------------------------------------------------------------------------ conditions, history
def test_a_change_can_be_bound_to_what_was_seen(client: httpx2.Client) -> None:
    before = etag(client)
    assert client.get("/v1/classes", headers={"If-None-Match": before}).status_code == 304
    assert client.put(path("one"), headers={"If-Match": before}).status_code == 201
    for late in (
        client.put(path("two"), headers={"If-Match": before}),
        client.delete(path("one"), headers={"If-Match": before}),
    ):
        assert refusal(late) == (412, "precondition-failed")
    assert listed(client) == [*BANK_NAMES, "one"]
    now = client.get("/v1/classes", headers={"If-None-Match": before}).headers["etag"]
    assert client.delete(path("one"), headers={"If-Match": now}).status_code == 204


def test_put_can_be_bound_to_the_class_being_new(client: httpx2.Client) -> None:
    new = {"If-None-Match": "*"}
    assert client.put(path("violet"), json={"phrases": ["lilac"]}, headers=new).status_code == 201
    answer = client.put(path("Violet"), json={"phrases": ["mauve"]}, headers=new)
    assert refusal(answer) == (412, "precondition-failed")
    assert answer.json()["detail"] == "class 'violet' exists already"
    assert client.get(path("violet")).json()["phrases"] == ["lilac"]
    assert refusal(client.put(path("violet"), headers={"If-None-Match": '"a tag"'})) == (422, "invalid-request")


def test_the_history_is_told_and_taken_back(client: httpx2.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sar_infer.access")
    bundle_etag, first = etag(client), client.get("/v1/bank/history").json()["count"]
    iris = client.put(path("iris"), files=files(VIOLET)).headers["etag"]
    client.put(path("two"))
    client.delete(path("red"))
    history = client.get("/v1/bank/history", params={"limit": 2}).json()
    assert [(step["n"], step["action"], step["by"], step["can_undo"]) for step in history["steps"]] == [
        (first + 3, "remove", "sar-serve", True),
        (first + 2, "add", "sar-serve", True),
    ]
    (step,) = client.get("/v1/bank/history", params={"offset": 2, "limit": 1}).json()["steps"]
    assert step["summary"] == "added 'iris', added 4 photos to 'iris'"
    assert (history["count"], f'"{history["bank"]}"') == (first + 3, etag(client))
    late = client.post("/v1/bank/rollback", json={"to": 0}, headers={"If-Match": iris})
    assert refusal(late) == (412, "precondition-failed")
    now = {"If-Match": f'"{history["bank"]}"'}
    done = client.post("/v1/bank/rollback", json={"to": first + 1}, headers=now)
    assert (done.status_code, done.headers["etag"], done.json()["classes"]) == (200, iris, len(BANK_NAMES) + 1)
    assert (done.json()["step"]["n"], done.json()["step"]["to"]) == (first + 4, first + 1)
    assert listed(client) == [*BANK_NAMES, "iris"]
    wait_for(lambda: f" step={first + 4} to={first + 1}" in caplog.text)
    assert client.post("/v1/bank/rollback", json={"to": first + 4}).json()["step"] is None
    assert client.post("/v1/bank/rollback", json={"steps": 1}).headers["etag"] == bundle_etag
    assert best(client, photo(VIOLET, 99)) in BANK_NAMES


@pytest.mark.parametrize("body", [{}, {"to": 9999}, {"to": -1}, {"steps": 0}, {"steps": 9999}, {"to": 0, "steps": 1}])
def test_a_rollback_to_nowhere_changes_nothing(client: httpx2.Client, body: dict[str, int]) -> None:
    before = client.put(path("one")).headers["etag"]
    assert refusal(client.post("/v1/bank/rollback", json=body)) == (422, "invalid-request")
    assert refusal(client.post("/v1/bank/rollback", json={"at": 1})) == (422, "invalid-request")
    nothing = client.post("/v1/bank/rollback").json()
    assert (nothing["code"], nothing["detail"]) == ("bad-request", 'no body; expected {"to": STEP} or {"steps": COUNT}')
    assert etag(client) == before


def test_a_change_says_whether_the_calibration_still_holds(bundle_path: Path, tmp_path: Path) -> None:
    bank = ClassBank.load(bundle_path / "bank.safetensors")
    fitted = BankCalibration(bank.content_digest, "", (), 2.0, 0.1, (0.5, 0.4, 0.3), {"photos": 60})
    calibrate(bank, fitted).save(tmp_path / "bank.safetensors")
    settings = Settings(bundle=bundle_path, bank=tmp_path / "bank.safetensors", key="k", device="cpu", threads=1)
    with local_server(settings) as local, httpx2.Client(base_url=local.url, headers=KEY, timeout=30) as client:
        assert client.put(path("red")).json()["calibrated"] is True  # nothing was changed
        assert client.put(path("violet")).json()["calibrated"] is False
        assert client.post("/v1/bank/rollback", json={"steps": 1}).status_code == 200
        assert client.put(path("red")).json()["calibrated"] is True
        assert client.put(path("red"), content=jpeg(), headers=PNG).json()["calibrated"] is False


def test_photos_enough_to_fit_a_model_are_told(client: httpx2.Client) -> None:
    """The command's test has the classes that were added since a fit."""
    answers = [client.put(path(f"thing {n}"), files=files((60 * n, 90, 200 - 60 * n), 2)).json() for n in range(4)]
    assert ["advice" in answer for answer in answers] == [False, False, False, True]
    assert answers[-1]["advice"] == "enough photos to fit a class model: sar-bank fit"


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_bank_that_a_deployment_exchanges_meanwhile(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank's path is a link, which is turned to another bank once the server has locked the first one."""
    link, first, second = (tmp_path / f"{name}.safetensors" for name in ("bank", "first", "second"))
    bank = open_bundle(bundle_path).bank
    for file in (first, second):
        add(bank, [file.stem], name_rows([file.stem]), by="test").save(file)
    link.symlink_to(first)
    before, owned = second.read_bytes(), bank_file.owned

    @contextlib.contextmanager
    def turned(path: Path, wait: float) -> Iterator[Path]:
        with owned(path, wait) as locked:
            (tmp_path / "new").symlink_to(second)
            (tmp_path / "new").replace(link)
            yield locked

    monkeypatch.setattr(bank_file, "owned", turned)
    settings = Settings(bundle=bundle_path, bank=link, key="k", device="cpu", threads=1)
    with local_server(settings) as local, httpx2.Client(base_url=local.url, headers=KEY, timeout=30) as client:
        assert client.put(path("violet")).status_code == 201
        assert listed(client) == [*BANK_NAMES, "second"]
    assert ClassBank.load(first, base=bank).names == (*BANK_NAMES, "first", "violet")
    assert second.read_bytes() == before


def test_rows_are_never_given_back(client: httpx2.Client, stored: Path) -> None:
    answers = [client.put(path("iris"), files=files(VIOLET))]
    answers += [client.get(url) for url in ("/v1/classes", path("iris"), "/v1/bank/history", "/v1/model")]
    values = ClassBank.load(stored).photos["iris"].rows.reshape(-1).tolist()
    for answer in answers:
        assert not any(f"{value:.4f}" in answer.text for value in values if abs(value) > 0.01)
