"""The folder of photos that the operator allowed: what a request may name, and that it holds up no other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from support.servers import Local, local_server

from sar_infer.server import photo_folder
from sar_infer.server.settings import Limits, Settings

CLOTHES = Path(__file__).parents[3] / "examples" / "clothes" / "test"
KINDS = ("shoes", "hat", "trousers")
KEY = {"Authorization": "Bearer k"}
PHOTOS = {f"june/{kind}/0{number}.jpg" for kind in KINDS for number in range(8)}
LIMITS = Limits(images=4, seconds=3, body_bytes=2**20)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``photos`` with three kinds of garments in June, and beside it ``secret``."""
    base = tmp_path_factory.mktemp("base")
    for kind in KINDS:
        for folder in ("photos/june", "secret", "photos/.hidden"):
            (base / folder / kind).mkdir(parents=True)
        for number in range(8):
            photo = (CLOTHES / kind / f"0{number}.jpg").read_bytes()
            (base / "photos/june" / kind / f"0{number}.jpg").write_bytes(photo)
        (base / "secret" / kind / "00.jpg").write_bytes(photo)
        (base / "photos/.hidden" / kind / "00.jpg").write_bytes(photo)
    (base / "photos" / "empty").mkdir()
    return base / "photos"


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Local]:
    with local_server(Settings(photos=root, key="k", device="cpu", threads=1, limits=LIMITS)) as local:
        yield local


@pytest.fixture
def client(server: Local) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, headers=KEY, timeout=60) as client:
        yield client


def ask(client: httpx2.Client, folder: str) -> httpx2.Response:
    return client.post("/v1/suggest", json={"folder": folder})


def grouped(answer: httpx2.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {photo for group in answer.json()["groups"] for photo in group["photos"]}


@pytest.mark.parametrize("folder", [".", "june", "june/", "./june"])
def test_photos_of_a_folder_are_grouped_by_their_paths(client: httpx2.Client, folder: str) -> None:
    answer = ask(client, folder)
    assert grouped(answer) == PHOTOS  # more than a request may send, and none that is hidden
    assert {label["photo"] for label in answer.json()["labels"]} <= PHOTOS


@pytest.mark.parametrize(
    "folder", ["..", "../secret", "june/../../secret", "/", "", ".hidden", "june/hat/00.jpg", "absent", "a\0b", "~"]
)
def test_what_is_no_folder_below_the_allowed_one_is_refused(client: httpx2.Client, root: Path, folder: str) -> None:
    for name in {folder, str(root.parent / "secret")}:
        answer = ask(client, name)
        if name == "":
            assert grouped(answer) == PHOTOS  # an empty path is the folder itself
            continue
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
        assert "expected the path of a folder below --photos" in answer.json()["detail"]
    empty = ask(client, "empty").json()
    assert "no photo that can be read in 'empty'" in empty["detail"]


def test_links_lead_nowhere_else(client: httpx2.Client, root: Path) -> None:
    links = root / "links"
    links.mkdir()
    try:
        (root / "out").symlink_to(root.parent / "secret", target_is_directory=True)
        (links / "folder").symlink_to(root.parent / "secret", target_is_directory=True)
        (links / "photo.jpg").symlink_to(root.parent / "secret" / "hat" / "00.jpg")
        (links / "inside.jpg").symlink_to(root / "june" / "hat" / "00.jpg")
        for linked in ("out", "links/folder", "out/hat"):
            assert "expected the path of a folder below --photos" in ask(client, linked).json()["detail"]
        answer = ask(client, "links")
        assert grouped(answer) == {"links/inside.jpg"}
        (error,) = answer.json()["errors"]
        assert (error["photo"], "a link out of it" in error["error"]) == ("links/photo.jpg", True)
    finally:
        for link in (root / "out", links / "folder", links / "photo.jpg", links / "inside.jpg"):
            link.unlink()
        links.rmdir()


def test_what_cannot_be_read_is_left_out(client: httpx2.Client, root: Path) -> None:
    odd = root / "odd"
    odd.mkdir()
    (odd / "good.jpg").write_bytes((CLOTHES / "hat" / "00.jpg").read_bytes())
    (odd / "bad.jpg").write_bytes(b"none")
    (odd / "huge.jpg").write_bytes(bytes(LIMITS.body_bytes + 1))
    (odd / "words.txt").write_text("no photo")
    (odd / "circle.jpg").symlink_to(odd / "circle.jpg")
    (odd / os.fsdecode(b"\xff.jpg")).write_bytes(b"none")
    answer = ask(client, "odd")
    for path in [*odd.iterdir()]:
        path.unlink()
    odd.rmdir()
    assert grouped(answer) == {"odd/good.jpg"}
    codes = {error["photo"]: error["error_code"] for error in answer.json()["errors"]}
    assert codes.pop("odd/huge.jpg") == "image-too-large"
    assert codes.pop("odd/bad.jpg") == "unsupported-format"
    assert len(codes) == 2 and "odd/circle.jpg" in codes, codes  # and one whose name is no UTF-8


def test_too_many_photos_are_refused(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.server.routes.suggest._MOST_OF_A_FOLDER", 23)
    answer = ask(client, "june")
    assert (answer.status_code, answer.json()["code"]) == (413, "too-many-images")
    assert "at most 23 photos" in answer.json()["detail"]


def test_a_folder_holds_up_no_other_request_and_has_no_deadline(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, listed = threading.Event(), threading.Event(), photo_folder.image_paths

    def slow_paths(folder: Path) -> Iterator[Path]:
        for number, path in enumerate(listed(folder)):
            if number == 8:
                begun.set()
                go_on.wait(60)
            yield path

    monkeypatch.setattr(photo_folder, "image_paths", slow_paths)
    photo = (CLOTHES / "hat" / "00.jpg").read_bytes()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, client, "june")
        try:
            assert begun.wait(60)
            classified = client.post("/v1/classify", content=photo, headers={"Content-Type": "image/jpeg"})
            assert classified.status_code == 200, classified.text
            second = ask(client, "june")
            assert (second.status_code, second.json()["code"]) == (429, "overloaded")
            assert second.headers["Retry-After"]
            time.sleep(LIMITS.seconds + 0.5)  # what another request may take
        finally:
            go_on.set()
        assert grouped(first.result()) == PHOTOS
    assert grouped(ask(client, "june")) == PHOTOS


def test_a_folder_is_asked_for_alone_and_only_where_one_is_allowed(client: httpx2.Client, bundle_path: Path) -> None:
    both = client.post("/v1/suggest", json={"folder": "june", "images": ["bm9uZQ=="]})
    assert "expected either images or embeddings or folder" in both.json()["detail"]
    with local_server(Settings(bundle=bundle_path, key="k", device="cpu", threads=1)) as local:
        answer = httpx2.post(f"{local.url}/v1/suggest", json={"folder": "june"}, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
        assert "this server allows none; start it with --photos DIR" in answer.json()["detail"]
