from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from support.bundles import BANK_NAMES
from support.pictures import jpeg
from support.servers import Local, local_server

from sar_infer import Classifier
from sar_infer.bank import ClassBank, amend, calibrate
from sar_infer.bank.learned import BankCalibration
from sar_infer.server.settings import Settings

KEY = {"Authorization": "Bearer k"}


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


def path(name: str) -> str:
    return "/v1/classes/" + urllib.parse.quote(name, safe="")


def listed(client: httpx2.Client, **query: Any) -> list[str]:
    return [entry["name"] for entry in client.get("/v1/classes", params=query).json()["classes"]]


def test_a_class_is_added_used_and_removed(client: httpx2.Client, tmp_path: Path, classifier: Classifier) -> None:
    added = client.put(path("violet"))
    shown = {"name": "violet", "origin": "added", "phrases": ["violet"], "findings": []}
    assert (added.status_code, added.json()) == (201, shown)
    assert listed(client) == [*BANK_NAMES, "violet"]
    answer = client.post("/v1/classify?top_k=9", content=jpeg(), headers={"Content-Type": "image/jpeg"}).json()
    sources = {p["label"]: p["source"] for p in answer["results"][0]["predictions"]}
    assert sources == dict.fromkeys([*BANK_NAMES, "violet"], "bank")
    stored = ClassBank.load(tmp_path / "bank.safetensors")
    assert np.array_equal(stored.embeddings[-1:], classifier.embed_names(["violet"]))
    assert answer["bank"] == stored.content_digest == added.headers["etag"].strip('"')
    removed = client.delete(path("violet"))
    assert (removed.status_code, removed.content) == (204, b"")
    assert listed(client) == list(BANK_NAMES)
    assert client.get(path("violet")).json()["code"] == "not-found"


def test_removed_classes_are_listed_until_they_are_back(client: httpx2.Client) -> None:
    for name in ("green", "violet", "Red"):
        client.put(path(name))
        assert client.delete(path(name)).status_code == 204
    assert client.get("/v1/classes").json()["removed"] == 2
    found = client.get("/v1/classes", params={"removed": True}).json()
    wanted = [{"name": name, "origin": "bundle", "phrases": [name]} for name in ("red", "green")]
    assert (found["classes"], found["count"], found["removed"]) == (wanted, 2, 2)
    assert listed(client, removed=True, prefix="r") == listed(client, removed=True, limit=1) == ["red"]
    client.put(path("green"))
    assert listed(client, removed=True) == ["red"]
    client.put(path("red"))
    assert client.get("/v1/classes").json()["removed"] == 0


def test_putting_twice_is_doing_once(client: httpx2.Client) -> None:
    body = {"phrases": ["deep purple", "lilac"]}
    first = client.put(path("violet"), json=body)
    again = client.put(path(" VIOLET "), json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["etag"] == again.headers["etag"]
    assert client.get(path("violet")).json()["phrases"] == body["phrases"]
    other = client.put(path("violet"), json={"phrases": ["mauve"]})
    assert (other.status_code, other.json()["phrases"]) == (200, ["mauve"])
    assert other.headers["etag"] != first.headers["etag"]


def test_a_name_that_is_not_there_comes_with_the_one_that_may_be_meant(client: httpx2.Client, tmp_path: Path) -> None:
    for refused in (
        client.get(path("gren")),
        client.delete(path("Gren")),
        client.post(path("gren") + "/images", content=jpeg(), headers={"Content-Type": "image/jpeg"}),
    ):
        assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json")
        assert refused.json()["detail"].lower().endswith("no class 'gren' in the bank; did you mean 'green'?")
    assert client.get(path("zeppelin")).json()["detail"] == "no class 'zeppelin' in the bank"
    assert listed(client) == list(BANK_NAMES)
    file = tmp_path / "bank.safetensors"
    client.put(path("violet"))
    bank = ClassBank.load(file)
    amend(bank, {"violet": replace(bank.info_of("violet"), aliases=("lilac",))}).save(file)
    assert client.get(path("lilac")).json()["detail"] == "no class 'lilac' in the bank; did you mean 'violet'?"


def test_a_change_says_whether_the_calibration_still_holds(bundle_path: Path, tmp_path: Path) -> None:
    file, bank = tmp_path / "bank.safetensors", ClassBank.load(bundle_path / "bank.safetensors")
    fitted = BankCalibration(
        bank.content_digest, "", "text", tuple(bank.names), (), 2.0, {"score": 0.1, "energy": 1.0}, {"0.9": 0.5}, {}
    )
    calibrate(bank, fitted).save(file)
    settings = Settings(bundle=bundle_path, bank=file, key="k", device="cpu", threads=1)
    image = {"Content-Type": "image/jpeg"}
    with local_server(settings) as local, httpx2.Client(base_url=local.url, headers=KEY, timeout=30) as client:
        assert client.put(path("red")).json()["calibrated"] is True  # nothing was changed
        assert client.put(path("violet")).json()["calibrated"] is False
        assert client.put(path("violet")).json()["calibrated"] is False
        assert client.post("/v1/bank/rollback", json={"steps": 1}).status_code == 200
        assert client.put(path("red")).json()["calibrated"] is True
        assert client.post(path("red") + "/images", content=jpeg(), headers=image).json()["calibrated"] is False


def test_an_odd_name_is_pointed_out_or_refused(client: httpx2.Client) -> None:
    strict = client.put(path("Reds") + "?strict=true")
    assert (strict.status_code, strict.json()["code"]) == (409, "conflict")
    assert listed(client) == list(BANK_NAMES)
    (finding,) = client.put(path("Reds")).json()["findings"]
    assert (finding["kind"], finding["name"], finding["suggestion"]) == ("duplicate", "Reds", "red")
    assert client.put(path("Reds")).json()["findings"] == []  # it is there already
    same = {"phrases": ["green"]}  # and so the very row of that class
    (finding,) = client.put(path("lawn"), json=same).json()["findings"]
    assert (finding["kind"], finding["suggestion"]) == ("near-duplicate", "green")
    assert client.put(path("red"), json={"phrases": ["scarlet"]}).json()["findings"] == []
    assert (
        client.put(path("SKU-1"), json={"phrases": ["green\u200bish"]}).json()["findings"][0]["kind"]
        == "odd-characters"
    )


@pytest.mark.parametrize(
    "name", ["a/b", "50 %", "?x=1", "#1", "crème brûlée", "日本", "a..b", "x;y", "a/images/b", "images"]
)
def test_any_name_fits_into_a_path(client: httpx2.Client, name: str) -> None:
    assert client.put(path(name)).json()["name"] == name
    assert client.get(path(name)).json()["name"] == name
    assert name in listed(client)
    assert client.delete(path(name)).status_code == 204


@pytest.mark.parametrize("sent", ["red/images", "red%2Fimages"])
def test_put_in_place_of_post_makes_no_class(client: httpx2.Client, sent: str) -> None:
    answer = client.put("/v1/classes/" + sent)
    assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (405, "POST", "method-not-allowed")
    assert answer.headers["content-type"] == "application/problem+json"
    assert listed(client) == list(BANK_NAMES)


def test_a_change_can_be_bound_to_what_was_seen(client: httpx2.Client) -> None:
    seen = client.get("/v1/classes").headers["etag"]
    assert client.get("/v1/classes", headers={"If-None-Match": seen}).status_code == 304
    assert client.put(path("one"), headers={"If-Match": seen}).status_code == 201
    for late in (
        client.put(path("two"), headers={"If-Match": seen}),
        client.delete(path("one"), headers={"If-Match": seen}),
    ):
        assert (late.status_code, late.json()["code"]) == (412, "precondition-failed")
    assert listed(client) == [*BANK_NAMES, "one"]
    now = client.get("/v1/classes", headers={"If-None-Match": seen}).headers["etag"]
    assert client.delete(path("one"), headers={"If-Match": now}).status_code == 204


def test_put_can_be_bound_to_the_class_being_new(client: httpx2.Client) -> None:
    new = {"If-None-Match": "*"}
    assert client.put(path("violet"), json={"phrases": ["lilac"]}, headers=new).status_code == 201
    answer = client.put(path("Violet"), json={"phrases": ["mauve"]}, headers=new)
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition-failed")
    assert answer.json()["detail"] == "class 'violet' exists already"
    assert client.get(path("violet")).json()["phrases"] == ["lilac"]
    answer = client.put(path("violet"), headers={"If-None-Match": '"a tag"'})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")


def test_the_history_is_told_and_taken_back(client: httpx2.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sar_infer.access")
    assert client.get("/v1/bank/history").json()["steps"] == []
    seen = client.put(path("one")).headers["etag"]
    client.put(path("two"))
    client.delete(path("red"))
    found = client.get("/v1/bank/history", params={"limit": 2}).json()
    assert [(step["n"], step["action"], step["by"], step["can_undo"]) for step in found["steps"]] == [
        (3, "remove", "sar-serve", True),
        (2, "add", "sar-serve", True),
    ]
    assert (found["count"], found["bank"]) == (3, client.get("/v1/classes").json()["bank"])
    late = client.post("/v1/bank/rollback", json={"to": 0}, headers={"If-Match": seen})
    assert (late.status_code, late.json()["code"]) == (412, "precondition-failed")
    done = client.post("/v1/bank/rollback", json={"to": 1}, headers={"If-Match": f'"{found["bank"]}"'})
    assert (done.status_code, done.headers["etag"], done.json()["classes"]) == (200, seen, len(BANK_NAMES) + 1)
    assert (done.json()["step"]["n"], done.json()["step"]["to"]) == (4, 1)
    assert listed(client) == [*BANK_NAMES, "one"]
    (line,) = [line for line in caplog.messages if "/v1/bank/rollback 200" in line]
    assert line.endswith(" step=4 to=1")
    assert client.post("/v1/bank/rollback", json={"to": 4}).json()["step"] is None
    assert client.post("/v1/bank/rollback", json={"steps": 1}).json()["step"]["to"] == 0
    assert listed(client) == list(BANK_NAMES)


@pytest.mark.parametrize(
    "body", [{}, {"to": 9}, {"to": -1}, {"steps": 0}, {"steps": 3}, {"to": 0, "steps": 1}, {"at": 1}]
)
def test_a_rollback_to_nowhere_changes_nothing(client: httpx2.Client, body: dict[str, int]) -> None:
    seen = client.put(path("one")).headers["etag"]
    answer = client.post("/v1/bank/rollback", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    nothing = client.post("/v1/bank/rollback").json()
    assert (nothing["code"], nothing["detail"]) == ("bad-request", 'no body; expected {"to": STEP} or {"steps": COUNT}')
    assert client.get("/v1/classes").headers["etag"] == seen


def test_the_list_is_told_in_parts(client: httpx2.Client) -> None:
    assert listed(client, prefix="GR") == ["green", "grey thing"]
    assert listed(client, like="Y t") == ["grey thing"]
    assert listed(client, prefix="g", like="e", offset=1) == ["grey thing"]
    assert listed(client, limit=2, offset=1) == list(BANK_NAMES[1:3])
    page = client.get("/v1/classes", params={"limit": 1}).json()
    assert (len(page["classes"]), page["count"]) == (1, len(BANK_NAMES))
    assert client.get("/v1/classes", params={"limit": 0}).status_code == 422


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "bad-request"),
        (b'{"phrases": []}', "invalid-request"),
        (b'{"phrase": ["x"]}', "invalid-request"),
        (b'{"phrases": [" "]}', "bad-class-name"),
    ],
)
def test_a_change_that_cannot_be_used_changes_nothing(client: httpx2.Client, body: bytes, code: str) -> None:
    seen = client.get("/v1/classes").headers["etag"]
    answer = client.put(path("violet"), content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["code"] == code
    for name in ("x" * 300, "a\tb", " ", "w " * 200):
        answer = client.put(path(name))
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-class-name"), name
    assert client.get("/v1/classes").headers["etag"] == seen


@pytest.mark.parametrize("name", ["a%0Ab", "%0Aa", "a%0A", "a%0Db", "a%00", "x" * 300])
def test_a_name_that_no_class_can_have_is_refused_by_all_methods(client: httpx2.Client, name: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = client.request(method, "/v1/classes/" + name)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-class-name"), method
    answer = client.put("/v1/classes/red%0A")
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith("contains a control character or a lone surrogate; leave it out")
    assert listed(client) == list(BANK_NAMES)


def test_the_last_class_stays(client: httpx2.Client) -> None:
    for name in BANK_NAMES[1:]:
        assert client.delete(path(name)).status_code == 204
    answer = client.delete(path(BANK_NAMES[0]))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_readers_never_wait_for_writers_nor_see_half_a_change(client: httpx2.Client, server: Local) -> None:
    """Check that each answer fits one state of the bank while names come and go."""
    stop, states, seen = threading.Event(), {}, []
    states[server.service.store.snapshot.etag] = len(BANK_NAMES)

    def write() -> None:
        with httpx2.Client(base_url=server.url, headers=KEY) as writer:
            for number in range(30):
                etag = writer.put(path(f"name {number}")).headers["etag"].strip('"')
                states[etag] = len(BANK_NAMES) + number + 1
        stop.set()

    def read() -> None:
        with httpx2.Client(base_url=server.url, headers={**KEY, "Content-Type": "image/jpeg"}) as reader:
            while not stop.is_set():
                answer = reader.post("/v1/classify?top_k=100", content=jpeg()).json()
                seen.append((answer["bank"], answer["classes"], len(answer["results"][0]["predictions"])))

    threads = [threading.Thread(target=write), *(threading.Thread(target=read) for _ in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({bank for bank, _, _ in seen}) > 3
    assert all(count == listed == states[bank] for bank, count, listed in seen)


def test_added_classes_are_there_after_a_restart(bundle_path: Path, tmp_path: Path) -> None:
    settings = Settings(bundle=bundle_path, bank=tmp_path / "bank.safetensors", key="k", device="cpu")
    with local_server(settings) as server:
        httpx2.put(server.url + path("violet"), headers=KEY, json={"phrases": ["lilac"]})
        httpx2.delete(server.url + path("red"), headers=KEY)
    with local_server(settings) as server:
        entries = httpx2.get(server.url + "/v1/classes", headers=KEY).json()["classes"]
    assert [entry["name"] for entry in entries] == [*BANK_NAMES[1:], "violet"]
    assert entries[-1]["phrases"] == ["lilac"]
