"""Both clients against real servers, and against one that answers what no ``sar-serve`` would."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.photos import write_photo
from support.pictures import encoded
from support.servers import Server, local_server, serving

from sar_infer import AsyncClient, Classifier, Client, ServerError
from sar_infer.cli.bank import main as sar_bank
from sar_infer.client import exchange
from sar_infer.client.exchange import Reply
from sar_infer.errors import ImageError, InputError, SarInferError
from sar_infer.server.settings import Limits, Settings

pytest.importorskip("httpx2")
KEY = "a key for tests"
RGB = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
KINDS = ("Client", "AsyncClient")


class Waiting:
    """An ``AsyncClient`` whose methods wait, so that one test serves both kinds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **options: self._runner.run(getattr(self._client, name)(*given, **options))

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self._runner.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return {"Client": Client, "AsyncClient": Waiting}[request.param]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving("--bank", str(tmp_path_factory.mktemp("bank") / "bank.safetensors"), key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    """Takes little at once, and has no key."""
    with serving("--max-images", "3", "--max-body", "1") as server:
        yield server


@pytest.fixture
def client(kind: Any, server: Server) -> Iterator[Any]:
    with kind(server.url, KEY) as client:
        yield client


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.open()


@dataclass
class Scripted:
    """A server that gives the answers it is told, the last one again and again, and remembers what it was asked."""

    answers: list[tuple[int, dict[str, str], bytes]]
    delay: float = 0
    asked: list[str] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    url: str = ""


@contextlib.contextmanager
def scripted(*answers: tuple[int, dict[str, str], Any], delay: float = 0) -> Iterator[Scripted]:
    ready = [(s, h, body if isinstance(body, bytes) else json.dumps(body).encode()) for s, h, body in answers]
    state, lock = Scripted(ready, delay), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                status, headers, body = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
                state.asked.append(self.path)
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            time.sleep(state.delay)
            with lock:
                state.at_once -= 1
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def problem(status: int, code: str) -> dict[str, Any]:
    return {"type": "…", "title": "…", "status": status, "detail": f"because of {code}", "code": code}


def result(label: str) -> dict[str, Any]:
    prediction = {"rank": 1, "label": label, "score": 1, "logit": 2, "similarity": 0.5, "source": "bank"}
    return {"image": "image[0]", "predictions": [prediction], "error": None, "error_code": None, "branch": "text"}


# ------------------------------------------------------------------------------------------ in a classifier's place
def forms(tmp_path: Path) -> list[Any]:
    """All that a classifier takes, as one list."""
    image = Image.fromarray(RGB)
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    palette = image.quantize(16)
    palette.info["transparency"] = 3
    deep = Image.fromarray(np.linspace(0, 65535, 40 * 56, dtype=np.uint16).reshape(40, 56))
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=turned)
    return [
        write_photo(tmp_path / "a.png"),
        str(write_photo(tmp_path / "b.jpg", seed=1)),
        encoded(image, "WEBP"),
        tmp_path / "turned.jpg",
        Image.open(tmp_path / "turned.jpg"),
        *(image.convert(mode) for mode in ("RGB", "L", "1", "CMYK", "YCbCr", "LA")),
        clear,
        palette,
        deep,
        RGB,
        RGB[:, :, 0],
        RGB[:, :, :1],
        np.asarray(clear),
    ]


def same(ours: Any, theirs: Any) -> None:
    assert [r.image for r in ours] == [r.image for r in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert (one.error, one.branch) == (other.error, other.branch)
        assert [(p.label, p.source) for p in one.predictions] == [(p.label, p.source) for p in other.predictions]
        if other.explanation is not None:
            assert one.explanation.runner_up == other.explanation.runner_up
            assert [name for name, _ in one.explanation.nearest] == [name for name, _ in other.explanation.nearest]
        for p, q in zip(one.predictions, other.predictions, strict=True):
            assert (p.score, p.logit, p.similarity) == pytest.approx((q.score, q.logit, q.similarity), abs=2e-4)


def test_every_form_of_an_image_gets_the_classifiers_answer(
    client: Any, classifier: Classifier, tmp_path: Path
) -> None:
    images = forms(tmp_path)
    same(client.classify(images, top_k=1), classifier.classify(images, top_k=1))
    for image in images[2:6]:
        same(client.classify(image, top_k=1), classifier.classify(image, top_k=1))
    images[4].close()


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"classes": ["fog", "blank page", "Fog "]},
        {"classes": ("fog", "sea"), "only": True, "top_k": 1},
        {"classes": {"weather": ["fog", "heavy rain"], "sea": "sea"}, "only": True},
        {"classes": {"weather": ["fog", "heavy rain"]}, "top_k": 2},
        {"classes": [], "top_k": 7},
        {"classes": [" sea  lion", "cafe\u0301", "Espresso"], "only": True, "explain": True},
    ],
)
def test_every_choice_of_classes_gets_the_classifiers_answer(
    client: Any, classifier: Classifier, choice: dict[str, Any]
) -> None:
    same(client.classify([RGB, RGB[::-1]], **choice), classifier.classify([RGB, RGB[::-1]], **choice))


def test_a_bad_image_fails_alone_in_the_classifiers_words(client: Any, classifier: Classifier, tmp_path: Path) -> None:
    files = [tmp_path / "none.jpg", tmp_path, tmp_path / ("x" * 300)]
    images = [RGB, *files, RGB.astype(float), np.zeros((3, 900, 3), np.uint8), RGB]
    ours = client.classify(images)
    same(ours, classifier.classify(images))
    assert [r.error is None for r in ours] == [True, *[False] * 5, True]
    bad = client.classify([b"no picture", b"", RGB])
    assert [bool(r.error) for r in bad] == [True, True, False]
    assert client.classify(b"no picture")[0].error == bad[0].error
    assert client.classify([]) == []


def test_many_images_stay_in_order(client: Any) -> None:
    names = ["red", "green", "blue"]
    images = (np.full((8, 8, 3), np.eye(3, dtype=np.uint8)[i % 3] * 255) for i in range(50))
    results = client.classify(images, classes=names, only=True, top_k=1)
    assert [r.image for r in results] == [f"image[{i}]" for i in range(50)]
    assert [r.predictions[0] for r in results[:3]] * 16 == [r.predictions[0] for r in results[:48]]


def test_what_is_too_much_for_a_server_is_sent_in_parts(kind: Any, narrow: Server) -> None:
    noise = np.random.default_rng(0)
    sides = (8, 300, 700, 300, 300, *[8] * 30)
    images = [noise.integers(0, 256, (side, side, 3), np.uint8) for side in sides]
    with kind(narrow.url) as client:
        results = list(client.classify(images, top_k=1))
        assert [r.image for r in results] == [f"image[{i}]" for i in range(35)]
        assert [r.image for r in results if r.error] == ["image[2]"]
        assert "at most 1 MiB" in str(results[2].error)
        assert not any(r.error for r in client.classify(images[3:], classes={"x": ["y", "z"]}))
        assert client.embed_images(images[3:]).shape == (32, 512)
        with pytest.raises(ServerError, match="1 MiB") as refused:
            client.embed_images(images[2])
        assert refused.value.code == "body-too-large"


def test_mode_is_the_servers_word(client: Any, server: Server) -> None:
    (only,) = client.classify(RGB, ["fog", "sea"], mode="only")
    assert {p.label for p in only.predictions} == {"fog", "sea"}
    with pytest.raises(ServerError, match="'bank'"):
        client.classify(RGB, ["fog"], mode="bank")
    with pytest.raises(InputError, match="disagree"):
        client.classify(RGB, ["fog"], only=True, mode="extend")


def test_embeddings_are_the_classifiers(client: Any, classifier: Classifier, tmp_path: Path) -> None:
    images = [RGB, encoded(Image.fromarray(RGB), "PNG"), write_photo(tmp_path / "a.png")]
    np.testing.assert_allclose(client.embed_images(images), classifier.embed_images(images), atol=1e-5)
    assert client.embed_images(RGB).shape == (1, 512)
    names = [f"name {i}" for i in range(300)]
    np.testing.assert_allclose(client.embed_names(names), classifier.embed_names(names), atol=1e-5)
    assert len(client.embed_names([])) == len(client.embed_images([])) == 0
    with pytest.raises(ImageError, match=r"none\.jpg"):
        client.embed_images([RGB, tmp_path / "none.jpg"])
    with pytest.raises(ImageError, match=r"^image\[1\]: "):
        client.embed_images([RGB, b"no picture"])
    with pytest.raises(InputError, match="'cat'"):
        client.embed_names("cat")


# ---------------------------------------------------------------------------------------------- the bank, the server
VIOLET = (140, 60, 220)


@pytest.mark.parametrize("name", ["blue whale", "a/b", "50 % off?", "Öl & Essig #1", "a\\b+c;d=e", "..", "."])
def test_classes_come_and_go(client: Any, name: str) -> None:
    before = client.classes()
    etag = client.add_class(name, if_match=before.etag)
    after = client.classes()
    assert (after.etag, after.names) == (etag, (*before.names, name))
    assert after.classes[-1].origin == "added"
    assert after.classes[0].phrases == (before.names[0],)
    assert client.add_class(name) == etag
    changed = client.add_class(name, ["one phrase", "another"])
    assert changed != etag
    assert client.classes().classes[-1].phrases == ("one phrase", "another")
    assert client.remove_class(name, if_match=changed) == before.etag


def test_photos_of_a_class(client: Any) -> None:
    before = client.classes().etag
    photos = [picture(VIOLET, seed) for seed in range(5)]
    added = client.add_photos("iris", photos, batch_size=2, if_match=before)
    assert (added.photos, added.known, added.etag, added.created) == (5, 0, client.classes().etag, True)
    again = client.add_photos("iris", photos[:3])
    assert (again.photos, again.known, again.etag, again.created) == (5, 3, added.etag, False)
    (entry,) = [one for one in client.classes().classes if one.name == "iris"]
    assert (entry.photos, entry.photos_only, entry.phrases) == (5, False, ("iris",))
    (result,) = client.classify(picture(VIOLET, 9))
    assert result.predictions[0].label == "iris"
    with pytest.raises(ServerError) as refused:
        client.add_photos("iris", picture((120, 230, 40), 1), strict=True)
    assert refused.value.status == 409
    odd = client.add_photos("iris", picture((120, 230, 40), 1))
    assert [finding.kind for finding in odd.findings] == ["far-photo"]
    only = client.add_photos("SKU-1", [picture((120, 230, 40), 2)], ["a thing"], photos_only=True)
    assert only.photos == 1
    with pytest.raises(ImageError, match=r"image\[1\]"):
        client.add_photos("iris", [photos[0], b"no image"])
    with pytest.raises(InputError, match="no photo"):
        client.add_photos("iris", [])
    client.remove_class("iris")
    client.remove_class("SKU-1")


def test_photos_that_nobody_labelled(kind: Any, here: Path, bundle_path: Path) -> None:
    """Both ways of giving photos get what the route itself answers, by the names of the photos."""
    bank = Path("bank.safetensors")
    for name, colour in COLOURS.items():
        for number in range(8):
            write_picture(Path("photos", "known", name, f"{number}.png"), colour, number)
            write_picture(Path("photos", "others", name, f"{number}.png"), colour, 50 + number)
    for command in (["add", str(bank), "--photos", "photos/known"], ["fit", str(bank)]):
        result = CliRunner().invoke(sar_bank, command)
        assert result.exit_code == 0, result.output
    paths = [*map(str, sorted(Path("photos/others").rglob("*.png")))]
    with (
        local_server(
            Settings(
                bundle_path, bank, Path("photos").absolute(), "k", device="cpu", threads=1, limits=Limits(images=6)
            )
        ) as local,
        kind(local.url, "k") as client,
    ):
        before = client.classes().etag
        groups = client.suggest(paths)
        assert {photo for group in groups["groups"] for photo in group["photos"]} == {*paths}
        assert {label["photo"] for label in groups["labels"]} <= {*paths}
        of_folder = client.suggest(folder="others")
        assert [group["size"] for group in of_folder["groups"]] == [group["size"] for group in groups["groups"]]
        assert {f"photos/{photo}" for group in of_folder["groups"] for photo in group["photos"]} == {*paths}

        dry = client.learn(paths, all_known=True, dry_run=True)
        assert client.classes().etag == before == dry["bank"]
        with pytest.raises(ServerError) as refused:
            client.learn(paths, if_match="other")
        assert refused.value.status == 412
        report = client.learn(paths, all_known=True, if_match=before)
        assert (report["photos"], report["all_known"], report["bank"]) == (32, True, client.classes().etag)
        assert report["bank"] != before
        assert {note["key"] for note in report["look_first"]} <= {*paths}
        again = client.learn(folder="others", all_known=True)
        for field_name in ("photos", "counted", "changed", "classes"):
            assert again[field_name] == report[field_name] == dry[field_name]
        assert {f"photos/{note['key']}" for note in again["look_first"]} == {
            note["key"] for note in report["look_first"]
        }
        with pytest.raises(ServerError, match="expected the path of a folder"):
            client.learn(folder="../known")
        with pytest.raises(ImageError, match="absent"):
            client.learn([paths[0], "absent.png"])
        for method in (client.learn, client.suggest):
            with pytest.raises(InputError, match="either images or a folder"):
                method()
            with pytest.raises(InputError, match="either images or a folder"):
                method(paths, folder="others")


COLOURS = {"red": (210, 60, 50), "green": (60, 190, 70), "blue": (50, 70, 220), "iris": (140, 60, 220)}


def write_picture(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    generator = np.random.default_rng([seed, *colour])
    tint = np.clip(np.array(colour) + generator.normal(0, 45, 3), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(tint + generator.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)).save(path)


def picture(colour: tuple[int, int, int], seed: int) -> np.ndarray:
    pixels = np.tile(np.array(colour), (32, 32, 1))
    pixels[:, :, seed % 3] += 6 if seed % 6 < 3 else -6
    pixels[seed % 32, seed // 32] -= 1
    return pixels.astype(np.uint8)


def test_changes_are_told_and_taken_back(client: Any) -> None:
    step = len(client.history())
    before = client.classes().etag
    client.add_class("blue whale")
    assert (client.history()[0]["n"], client.history()[0]["by"]) == (step + 1, "sar-serve")
    assert client.rollback(step, if_match=client.classes().etag) == before
    with pytest.raises(ServerError) as refused:
        client.rollback(step + 9)
    assert (refused.value.status, refused.value.code) == (422, "invalid-request")


def test_a_change_of_what_has_changed_is_refused(client: Any) -> None:
    etag = client.classes().etag
    client.add_class("blue whale", if_match="*" if "blue whale" in client.classes().names else None)
    with pytest.raises(ServerError, match="changed") as refused:
        client.add_class("red whale", if_match=etag)
    assert (refused.value.status, refused.value.code) == (412, "precondition-failed")
    client.remove_class("blue whale")
    with pytest.raises(ServerError, match="blue whale") as missing:
        client.remove_class("blue whale")
    assert missing.value.status == 404
    for change in (client.add_class, client.remove_class):
        with pytest.raises(InputError, match="empty"):
            change(" ")
    with pytest.raises(InputError, match="'sea'"):
        client.add_class("fog", "sea")


def test_more_classes_than_a_page_holds(kind: Any) -> None:
    def page(names: range, bank: str) -> tuple[int, dict[str, str], Any]:
        entries = [{"name": str(i), "origin": "bundle", "phrases": [str(i)]} for i in names]
        return 200, {}, {"classes": entries, "count": 1500, "bank": bank}

    one, two = range(1000), range(1000, 1500)
    with scripted(page(one, "a"), page(two, "b"), page(one, "b"), page(two, "b")) as state, kind(state.url) as client:
        found = client.classes()
    assert found.etag == "b"
    assert found.names == tuple(map(str, range(1500)))
    assert [path.partition("?")[2] for path in state.asked] == [f"offset={i}&limit=1000" for i in (0, 1000) * 2]
    restless = [page(one, "a"), *(page(two, bank) for bank in "bcdefghijkl")]
    with scripted(*restless) as state, kind(state.url) as client, pytest.raises(ServerError) as unsteady:
        client.classes()
    assert unsteady.value.code == "unsteady"


def test_what_the_server_tells_of_itself(client: Any, classifier: Classifier) -> None:
    assert client.ready() is True
    told = client.model()
    assert told["digest"] == classifier.bundle.manifest.digest == client.reload()
    assert told["limits"]["images"] == 32


def test_a_server_without_a_key_takes_no_changes(kind: Any, narrow: Server) -> None:
    with kind(narrow.url) as client:
        for change in (lambda: client.add_class("x"), lambda: client.remove_class("x"), client.reload):
            with pytest.raises(ServerError) as refused:
                change()
            assert (refused.value.status, refused.value.code) == (403, "writes-disabled")


# ------------------------------------------------------------------------------------------------------ what goes wrong
def test_an_error_says_what_the_server_says(kind: Any, server: Server) -> None:
    with kind(server.url, "another key") as client, pytest.raises(ServerError) as refused:
        client.model()
    error = refused.value
    assert isinstance(error, SarInferError)
    assert (error.status, error.code) == (401, "unauthorised")
    assert error.detail == "the key in the header Authorization is not this server's"
    assert str(error) == f"{error.detail} (401, unauthorised, request {error.request_id})"
    assert server.logged(str(error.request_id))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - as processes send it to each other
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_server_that_is_not_there(kind: Any) -> None:
    for call in ("model", "ready"):
        with kind("http://127.0.0.1:9") as client, pytest.raises(ServerError) as refused:
            getattr(client, call)()
        assert (refused.value.status, refused.value.code) == (None, "unreachable")
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith("http://127.0.0.1:9: no answer")


def test_a_server_below_a_path(kind: Any) -> None:
    with scripted((200, {}, {})) as state:
        for end in ("/prefix", "/prefix/"):
            with kind(state.url + end) as client:
                assert client.model() == {}
        assert state.asked == ["/prefix/v1/model"] * 2


def test_a_server_that_is_slow(kind: Any) -> None:
    with scripted((200, {}, {}), delay=1) as state, kind(state.url, timeout=0.1) as client:
        with pytest.raises(ServerError) as refused:
            client.model()
        assert refused.value.code == "timeout"
        assert len(state.asked) == 1


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://host", "http://", "http://host:port", "/v1"])
def test_what_is_no_url_is_refused_at_once(kind: Any, url: str) -> None:
    with pytest.raises(InputError, match="url"):
        {Client: Client, Waiting: AsyncClient}[kind](url)


@pytest.mark.parametrize("key", ["", "schlüssel", "two\nlines"])
def test_what_no_header_carries_is_refused_at_once(key: str) -> None:
    with pytest.raises(InputError, match="key"):
        Client("http://localhost", key)


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (200, b"<html>welcome</html>", "unreadable-answer", "<html>welcome</html>"),
        (200, [], "unreadable-answer", "sar-serve"),
        (200, {"results": [{}]}, "unreadable-answer", "sar-serve"),
        (200, {"results": []}, "unreadable-answer", "sar-serve"),
        (200, b"\xff\xfe", "unreadable-answer", "sar-serve"),
        (200, b"[" * 100_000, "unreadable-answer", "sar-serve"),
        (502, b"[" * 100_000, "http-502", "status 502"),
        (307, b"", "http-307", "without a body"),
        (400, {"error": {"message": "no input", "code": "bad-request"}}, "bad-request", "no input"),
        (400, {"error": {"message": "no input", "code": None}}, "http-400", "no input"),
        (400, {"error": "no input"}, "http-400", "no input"),
        (404, problem(404, "not-found"), "not-found", "because of"),
        (413, b"<h1>Request\nEntity Too Large</h1>", None, "Request Entity Too Large"),
        (500, problem(500, "internal"), "internal", "because of"),
        (500, b"", "http-500", "without a body"),
        (502, b"<h1>" + b"x" * 5000, "http-502", "Gateway-less x"),
        (504, [1], "http-504", "[1]"),
    ],
)
def test_other_answers_are_told_once_and_in_one_line(kind: Any, status: int, body: Any, code: Any, words: str) -> None:
    with scripted((status, {}, body)) as state, kind(state.url) as client:
        if code is None:
            (refused,) = client.classify(RGB)
            message = refused.error
        else:
            with pytest.raises(ServerError) as raised:
                client.classify(RGB)
            message = str(raised.value)
            assert (raised.value.status, raised.value.code) == (status, code)
        assert len(state.asked) == 1
    assert words.removeprefix("Gateway-less ") in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(("status", "code"), [(429, "overloaded"), (503, "draining")])
def test_a_busy_server_is_asked_again(kind: Any, status: int, code: str) -> None:
    busy = (status, {"Retry-After": "0"}, problem(status, code))
    with scripted(busy, busy, (200, {}, {"results": [result("fog")]})) as state, kind(state.url) as client:
        assert client.classify(RGB)[0].predictions[0].label == "fog"
        assert len(state.asked) == 3
    with scripted(busy) as state, kind(state.url, retries=1) as client:
        with pytest.raises(ServerError, match=code):
            client.classify(RGB)
        assert len(state.asked) == 2
    with scripted((503, {}, {"ready": False})) as state, kind(state.url) as client:
        assert client.ready() is False
        assert len(state.asked) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "86400"}, exchange.LONGEST_PAUSE),
        ({"retry-after": "Wed, 25 Nov 2026 10:00:07 GMT", "date": "Wed, 25 Nov 2026 10:00:00 GMT"}, 7),
        ({"retry-after": "Wed, 25 Nov 2026 09:00:00 GMT", "date": "Wed, 25 Nov 2026 10:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, 0.5),
        ({"retry-after": "Wed, 25 Nov 2026 10:00:07 GMT"}, 0.5),
        ({"retry-after": "-1"}, 0.5),
        ({}, 0.5),
    ],
)
def test_the_pause_is_the_servers_within_reason(headers: dict[str, str], seconds: float) -> None:
    steps = exchange.answered(exchange.Call("GET", "/"), 2)
    assert isinstance(next(steps), exchange.Call)
    pause = steps.send(Reply("", 429, headers, b""))
    assert isinstance(pause, exchange.Pause)
    assert seconds <= pause.seconds <= 1.2 * seconds


# ------------------------------------------------------------------------------------------------------ side by side
def test_a_stream_keeps_so_many_requests_under_way_and_their_order() -> None:
    async def main(url: str) -> list[str]:
        async with AsyncClient(url) as client:
            stream = client.stream([RGB] * 12, batch_size=1, in_flight=3)
            return [r.predictions[0].label async for r in stream]

    answers = [(200, {}, {"results": [result("fog")]})]
    with scripted(*answers, delay=0.05) as state:
        assert asyncio.run(main(state.url)) == ["fog"] * 12
        assert (state.most_at_once, len(state.asked)) == (3, 12)


def test_a_stream_takes_images_as_it_needs_them_and_can_be_left(server: Server) -> None:
    taken = []

    def images() -> Iterator[Any]:
        for i in range(1000):
            taken.append(i)
            yield RGB

    async def main() -> None:
        async with AsyncClient(server.url, KEY) as client:
            stream: AsyncIterator[Any] = client.stream(images(), batch_size=2, in_flight=2)
            async with contextlib.aclosing(stream):  # type: ignore[type-var]
                async for _ in stream:
                    break
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert len(taken) < 12


def test_a_stream_ends_with_its_first_error() -> None:
    async def main(url: str) -> None:
        async with AsyncClient(url) as client:
            with pytest.raises(ServerError, match="internal"):
                await client.classify([RGB] * 99)
            assert len(asyncio.all_tasks()) == 1

    with scripted((500, {}, problem(500, "internal")), delay=0.05) as state:
        asyncio.run(main(state.url))
        assert len(state.asked) <= 5


@pytest.mark.parametrize("option", [{"in_flight": 0}, {"batch_size": 0}])
def test_a_stream_of_nothing_at_once_is_refused(option: dict[str, int]) -> None:
    async def main() -> None:
        async with AsyncClient("http://127.0.0.1:9") as client:
            async for _ in client.stream([RGB], **option):
                pass

    with pytest.raises(InputError, match=next(iter(option))):
        asyncio.run(main())


def test_one_client_serves_many_threads(server: Server) -> None:
    with Client(server.url, KEY) as client:
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(client.classify(RGB))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8
    assert all(other == found[0] for other in found)


# ------------------------------------------------------------------------------------------------------- the package
def test_both_kinds_have_the_same_methods_and_begin_like_a_classifiers() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(m).parameters) for name, m in found if not name.startswith("_")}

    ours, theirs = methods(Client), methods(AsyncClient)
    assert theirs.pop("stream") == [*ours.pop("stream"), "in_flight"]
    assert ours == theirs
    local = methods(Classifier)
    assert ours["classify"][: len(local["classify"])] == local["classify"]
    assert (ours["embed_images"], ours["embed_names"]) == (local["embed_images"], local["embed_names"])


def test_importing_costs_little_and_files_need_no_imaging(server: Server, tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "a.png")
    code = f"""
import sys
import sar_infer.client
heavy = {{"httpx2", "numpy", "onnxruntime", "PIL", "torch"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
with sar_infer.Client({server.url!r}, {KEY!r}) as client:
    assert client.classify([{str(photo)!r}, b"..."])[0].predictions
assert heavy & set(sys.modules) == {{"httpx2"}}, heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_httpx2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    for kind in (Client, AsyncClient):
        with pytest.raises(InputError, match=r"sar-clip\[client\]"):
            kind("http://localhost")
