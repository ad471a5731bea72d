"""The folder of photos that the operator allowed: what a request may name, and that it holds up no other."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from support.servers import Local, local_server

from sar_infer.server.routes import unlabelled
from sar_infer.server.settings import Limits, Settings

CLOTHES = Path(__file__).parents[4] / "examples" / "clothes" / "test"
KINDS = ("shoes", "hat", "trousers")
HAT = CLOTHES / "hat" / "00.jpg"
PHOTOS = {f"june/{kind}/0{number}.jpg" for kind in KINDS for number in range(8)}
LIMITS = Limits(images=4, body_bytes=2**20)
REFUSED = "expected the path of a folder below --photos"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return ``photos`` with three kinds of garments in June; beside it is ``secret``."""
    base = tmp_path_factory.mktemp("base")
    for path in PHOTOS:
        (base / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CLOTHES / Path(path).relative_to("june"), base / "photos" / path)
    for folder in ("secret", "photos/.hidden"):
        (base / folder / "hat").mkdir(parents=True)
        shutil.copy(HAT, base / folder / "hat")
    (base / "photos" / "empty").mkdir()
    return base / "photos"


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Local]:
    with local_server(Settings(photos=root, key="k", device="cpu", threads=1, limits=LIMITS)) as local:
        yield local


@pytest.fixture
def client(server: Local) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, headers={"Authorization": "Bearer k"}, timeout=60) as client:
        yield client


@pytest.fixture
def odd(root: Path) -> Iterator[Path]:
    """Return a folder of the test's own below ``root``."""
    (root / "odd").mkdir()
    yield root / "odd"
    shutil.rmtree(root / "odd")


def ask(client: httpx2.Client, folder: str) -> httpx2.Response:
    return client.post("/v1/suggest", json={"folder": folder})


def grouped(answer: httpx2.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {photo for group in answer.json()["groups"] for photo in group["photos"]}


@pytest.mark.parametrize("folder", ["", "./june/"])
def test_photos_of_a_folder_are_grouped_by_their_paths(client: httpx2.Client, folder: str) -> None:
    answer = ask(client, folder)
    assert grouped(answer) == PHOTOS  # more than a request may send, and none that is hidden
    assert {label["photo"] for label in answer.json()["labels"]} <= PHOTOS


def test_what_is_no_folder_below_the_allowed_one_is_refused(client: httpx2.Client, root: Path) -> None:
    secret = str(root.parent / "secret")
    for folder in ("..", "../secret", "june/../../secret", "/", ".hidden", "june/hat/00.jpg", "absent", "a\0b", secret):
        answer = ask(client, folder)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), folder
        assert REFUSED in answer.json()["detail"]
    assert "no photo that can be read in 'empty'" in ask(client, "empty").json()["detail"]


def test_links_lead_nowhere_else(client: httpx2.Client, root: Path, odd: Path) -> None:
    secret = root.parent / "secret"
    (odd / "folder").symlink_to(secret, target_is_directory=True)
    (odd / "photo.jpg").symlink_to(secret / "hat" / "00.jpg")
    (odd / "inside.jpg").symlink_to(root / "june" / "hat" / "00.jpg")
    for linked in ("odd/folder", "odd/folder/hat"):
        assert REFUSED in ask(client, linked).json()["detail"]
    answer = ask(client, "odd")
    assert grouped(answer) == {"odd/inside.jpg"}
    (error,) = answer.json()["errors"]
    assert (error["photo"], "a link out of it" in error["error"]) == ("odd/photo.jpg", True)


def test_what_cannot_be_read_is_left_out(client: httpx2.Client, odd: Path) -> None:
    shutil.copy(HAT, odd / "good.jpg")
    (odd / "bad.jpg").write_bytes(b"none")
    (odd / "huge.jpg").write_bytes(bytes(LIMITS.body_bytes + 1))
    (odd / "words.txt").write_text("no photo")
    (odd / "circle.jpg").symlink_to(odd / "circle.jpg")
    (odd / os.fsdecode(b"\xff.jpg")).write_bytes(b"none")
    answer = ask(client, "odd")
    assert grouped(answer) == {"odd/good.jpg"}
    codes = {error["photo"]: error["error_code"] for error in answer.json()["errors"]}
    assert codes.pop("odd/huge.jpg") == "image-too-large"
    assert codes.pop("odd/bad.jpg") == "unsupported-format"
    assert len(codes) == 2 and "odd/circle.jpg" in codes, codes  # and one whose name is no UTF-8


def test_too_many_photos_are_refused(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.server.routes.unlabelled._MOST_OF_A_FOLDER", 23)
    answer = ask(client, "june")
    assert (answer.status_code, answer.json()["code"]) == (413, "too-many-images")
    assert "at most 23 photos" in answer.json()["detail"]


def test_a_folder_holds_up_no_other_request_and_has_no_deadline(
    client: httpx2.Client, server: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, image_paths = threading.Event(), threading.Event(), unlabelled.image_paths

    def slow_paths(folder: Path) -> Iterator[Path]:
        for number, path in enumerate(image_paths(folder)):
            if number == 8:
                begun.set()
                go_on.wait(60)
            yield path

    monkeypatch.setattr(unlabelled, "image_paths", slow_paths)
    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        hasty = replace(server.service.settings, limits=replace(LIMITS, seconds=1))
        patch.setattr(server.service, "settings", hasty)
        first = pool.submit(ask, client, "june")
        try:
            assert begun.wait(60)
            patch.undo()  # only this request has little time
            photo = {"content": HAT.read_bytes(), "headers": {"Content-Type": "image/jpeg"}}
            assert client.post("/v1/classify", **photo).status_code == 200
            second = ask(client, "june")
            assert (second.status_code, second.json()["code"]) == (429, "overloaded")
            assert second.headers["Retry-After"]
            time.sleep(1.5)  # more than the first would have
        finally:
            go_on.set()
        assert grouped(first.result()) == PHOTOS
    assert grouped(ask(client, "june")) == PHOTOS


def test_a_folder_is_asked_for_alone_and_only_where_one_is_allowed(
    client: httpx2.Client, server: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = client.post("/v1/suggest", json={"folder": "june", "images": ["bm9uZQ=="]})
    assert "expected either images or embeddings or folder" in both.json()["detail"]
    monkeypatch.setattr(server.service, "settings", replace(server.service.settings, photos=None))
    answer = ask(client, "june")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert "this server allows none; start it with --photos DIR" in answer.json()["detail"]
