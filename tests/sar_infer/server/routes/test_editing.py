"""Over HTTP: photos of a class listed and removed, classes renamed and set, and what no route takes in silence."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.bundles import BANK_NAMES
from support.pictures import jpeg
from support.servers import Local

from sar_infer import Classifier
from sar_infer.bank import ClassBank

COLOURS = [(140, 60, 220), (120, 230, 40), (20, 90, 200)]


def images(count: int = 3) -> list[bytes]:
    return [jpeg(colour=colour) for colour in COLOURS[:count]]


@pytest.fixture
def iris(client: httpx2.Client) -> list[str]:
    """Add a class of three photos and return their digests."""
    client.put("/v1/classes/iris", files=[("image", ("x.jpg", one, "image/jpeg")) for one in images()])
    return [one["digest"] for one in client.get("/v1/classes/iris/photos").json()["photos"]]


def test_photos_are_listed(client: httpx2.Client, iris: list[str], classifier: Classifier) -> None:
    assert iris == [digest.hex() for digest in classifier.embed_photos(images()).digests]
    page = client.get("/v1/classes/IRIS/photos", params={"offset": 1, "limit": 1}).json()
    step = client.get("/v1/bank/history").json()["steps"][0]
    assert (page["photos"], page["count"]) == ([{"digest": iris[1], "at": step["at"], "by": "sar-serve"}], 3)
    assert client.get("/v1/classes/red/photos").json()["photos"] == []
    assert client.get("/v1/classes/absent/photos").status_code == 404
    # a class may have the name: its slash is encoded
    assert client.put("/v1/classes/iris%2Fphotos").status_code == 201
    assert client.get("/v1/classes/iris%2Fphotos").json()["name"] == "iris/photos"
    assert client.put("/v1/classes/photos").json()["name"] == "photos"
    refused = client.put("/v1/classes/iris/photos")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET")


@pytest.mark.parametrize("form", ["digests", "json", "form", "raw"])
def test_photos_are_removed_for_good(client: httpx2.Client, bank_server: Local, iris: list[str], form: str) -> None:
    file, image = bank_server.service.settings.bank, images(1)[0]
    assert isinstance(file, Path)
    row = ClassBank.load(file).photos["iris"].rows[0]
    call: dict[str, Any] = {
        "digests": {"json": {"digests": iris[:1]}},
        "json": {"json": {"images": [base64.b64encode(image).decode()]}},
        "form": {"files": {"image": ("x.jpg", image, "image/jpeg")}},
        "raw": {"content": image, "headers": {"Content-Type": "image/jpeg"}},
    }[form]
    assert row.tobytes() in file.read_bytes()
    removed = client.request("DELETE", "/v1/classes/iris/photos", **call)
    assert (removed.status_code, removed.json()["photos"]) == (200, 2), removed.text
    bank = ClassBank.load(file)
    assert removed.headers["etag"] == f'"{bank.content_digest}"'
    assert [digest.hex() for digest in bank.photos["iris"].digests] == iris[1:]
    assert row.tobytes() not in file.read_bytes()
    step = client.get("/v1/bank/history").json()["steps"][0]
    assert (step["action"], step["summary"], step["by"]) == ("forget", "removed 1 photo from 'iris'", "sar-serve")
    again = client.request("DELETE", "/v1/classes/iris/photos", **call)
    place = iris[0] if form == "digests" else "image[0]"
    assert (again.status_code, again.json()["detail"].split(":")[0]) == (422, place)


@pytest.mark.parametrize("form", ["digests", "images"])
def test_photos_move_to_another_class(client: httpx2.Client, iris: list[str], form: str) -> None:
    photos = iris[:1] if form == "digests" else [base64.b64encode(images(1)[0]).decode()]
    moved = client.post("/v1/photos/move", json={form: photos, "to": "RED"})
    assert (moved.status_code, moved.json()["name"], moved.json()["photos"]) == (200, "red", 1), moved.text
    assert [one["digest"] for one in client.get("/v1/classes/iris/photos").json()["photos"]] == iris[1:]
    assert client.get("/v1/bank/history").json()["steps"][0]["summary"] == "moved 1 photo from 'iris' to 'red'"
    assert client.post("/v1/photos/move", json={"digests": ["00" * 32], "to": "red"}).status_code == 422
    assert client.post("/v1/photos/move", json={form: photos, "to": "absent"}).status_code == 404
    assert client.post("/v1/bank/rollback", json={"steps": 1}).status_code == 200
    assert client.get("/v1/classes/iris").json()["photos"] == 3


def test_a_class_is_renamed(client: httpx2.Client, iris: list[str], classifier: Classifier, bank_server: Local) -> None:
    before = client.get("/v1/classes").headers["etag"]
    renamed = client.post("/v1/classes/Iris/rename", json={"to": " lily "}, headers={"If-Match": before})
    assert (renamed.status_code, renamed.json()["name"], renamed.json()["photos"]) == (200, "lily", 3)
    assert renamed.json()["phrases"] == ["iris"]
    embedded = client.post("/v1/classes/lily/rename", json={"to": "rose", "embed": True})
    assert embedded.json()["phrases"] == ["rose"]
    file = bank_server.service.settings.bank
    assert isinstance(file, Path)
    bank = ClassBank.load(file)
    assert (bank.embeddings[-1] == classifier.embed_names(["rose"])[0]).all()
    assert client.post("/v1/classes/rose/rename", json={"to": "red"}).json()["code"] == "bad-class-name"
    assert client.post("/v1/bank/rollback", json={"steps": 2}).status_code == 200
    assert client.get("/v1/classes/iris").status_code == 200


def test_settings_of_a_class(client: httpx2.Client, iris: list[str]) -> None:
    fields = {"aliases": ["Flag lily"], "threshold": 0.4, "background": True, "photos_only": True}
    shown = client.patch("/v1/classes/iris", json=fields)
    assert (shown.status_code, {name: shown.json()[name] for name in fields}) == (200, fields)
    assert client.get("/v1/classes/flag%20LILY").json() == shown.json()
    assert (
        client.post("/v1/classify", content=images(1)[0], headers={"Content-Type": "image/jpeg"}).json()["results"][0][
            "predictions"
        ][0]["label"]
        in BANK_NAMES
    )
    after = client.patch("/v1/classes/iris", json={"threshold": None, "background": False}).json()
    assert (after.get("threshold"), after.get("background"), after["aliases"]) == (None, None, ["Flag lily"])
    step = client.get("/v1/bank/history").json()["steps"][0]
    assert step["summary"] == "changed 'iris' (threshold, background)"
    for body, code in (
        ({"aliases": ["red"]}, "conflict"),
        ({"aliases": ["\n"]}, "bad-class-name"),
        ({"threshold": 2}, "invalid-request"),
        ({}, "invalid-request"),
        ({"alias": ["x"]}, "invalid-request"),
    ):
        assert client.patch("/v1/classes/iris", json=body).json()["code"] == code, body
    assert client.patch("/v1/classes/red", json={"photos_only": True}).json()["code"] == "conflict"


@pytest.mark.parametrize("change", [{"aliases": ["flag"]}, {"threshold": 0.5}, {"background": True}])
def test_an_etag_is_of_the_settings_too(client: httpx2.Client, iris: list[str], change: dict[str, object]) -> None:
    before = client.get("/v1/classes").headers["etag"]
    changed = client.patch("/v1/classes/iris", json=change, headers={"If-Match": before})
    assert changed.status_code == 200
    assert changed.headers["etag"] == client.get("/v1/classes").headers["etag"] != before
    late = client.post("/v1/classes/iris/rename", json={"to": "lily"}, headers={"If-Match": before})
    assert late.status_code == 412


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/photos", {"digests": ["00" * 32]}),
        ("POST", "/rename", {"to": "lily"}),
        ("PATCH", "", {"threshold": 0.5}),
    ],
)
def test_changes_below_a_class_have_the_rules_of_all_changes(
    client: httpx2.Client, bank_server: Local, iris: list[str], method: str, path: str, body: dict[str, Any]
) -> None:
    before, url = client.get("/v1/classes").headers["etag"], f"/v1/classes/iris{path}"
    late = client.request(method, url, json=body, headers={"If-Match": '"old"'})
    refused = [
        (late, 412),
        (client.request(method, f"/v1/classes/absent{path}", json=body), 404),
        (client.request(method, url), 400),
        (client.request(method, url, content=b"{"), 400 if path != "/photos" else 415),
        (client.request(method, url, json={**body, "more": 1}), 422),
        (client.request(method, f"{url}?strict=true", json=body), 422),
        (httpx2.request(method, bank_server.url + url, json=body), 401),
    ]
    for answer, status in refused:
        assert answer.status_code == status, answer.text
    assert client.get("/v1/classes").headers["etag"] == before
    assert client.get("/v1/classes/iris").json()["photos"] == 3


def test_the_last_class_stays_one_that_can_be_predicted(client: httpx2.Client) -> None:
    for name in BANK_NAMES[1:]:
        assert client.delete(f"/v1/classes/{name}").status_code == 204
    assert client.patch(f"/v1/classes/{BANK_NAMES[0]}", json={"background": True}).json()["code"] == "conflict"


def test_what_a_route_does_not_know_is_refused(client: httpx2.Client, iris: list[str]) -> None:
    """A body or a field that is ignored in silence once removed a whole class."""
    photo = {"content": images(1)[0], "headers": {"Content-Type": "image/jpeg"}}
    for method, url in (
        ("DELETE", "/v1/classes/iris"),
        ("GET", "/v1/classes/iris"),
        ("GET", "/v1/classes"),
        ("GET", "/v1/classes/iris/photos"),
        ("GET", "/v1/bank/history"),
        ("GET", "/v1/banks"),
        ("GET", "/v1/model"),
        ("POST", "/v1/reload"),
    ):
        answer = client.request(method, url, **photo)
        assert (answer.status_code, "expected no body" in answer.json()["detail"]) == (400, True), (method, url)
        unknown = client.request(method, f"{url}?limits=1")
        assert (unknown.status_code, "unknown field" in unknown.json()["detail"]) == (422, True), (method, url)
    misspelt = client.put("/v1/classes/iris?strct=true", **photo)
    assert misspelt.json()["detail"] == "query.strct: unknown field, perhaps strict; expected some of bank, strict"
    assert client.get("/v1/classes/iris").json()["photos"] == 3
