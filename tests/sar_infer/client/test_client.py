"""The client against a real server, and against one that answers what no ``sar-serve`` would."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.photos import write_photo
from support.pictures import encoded
from support.servers import Local, local_server

from sar_infer import Classifier, Client, ServerError
from sar_infer import client as module
from sar_infer.cli.bank import main as sar_bank
from sar_infer.errors import ImageError, InputError, SarInferError
from sar_infer.server.settings import Limits, Settings

KEY = "a key for tests"
RGB = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
VIOLET, LIME = (140, 60, 220), (120, 230, 40)


@pytest.fixture(scope="module")
def server(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Serve the tiny bundle with a key and a bank file."""
    bank = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    with local_server(Settings(bundle=bundle_path, bank=bank, key=KEY, device="cpu", threads=1)) as local:
        yield local


@pytest.fixture
def client(server: Local) -> Iterator[Client]:
    """Return a client of the server; what a test changes in the bank is taken back."""
    with Client(server.url, KEY) as client:
        yield client
        client.rollback(0)


@dataclass
class Scripted:
    """A server that gives the answers it is told, the last one again and again, and notes what it was asked."""

    answers: list[tuple[int, dict[str, str], bytes]]
    delay: float = 0
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
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
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                status, headers, body = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
                sent = re.sub(rb"[0-9a-f]{32}", b"boundary", content)  # of a form, otherwise random
                state.requests.append((f"{self.command} {self.path}", self.headers.get("If-Match", ""), sent))
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


def problem(status: int, code: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    content = {"type": "…", "title": "…", "status": status, "detail": f"because of {code}", "code": code}
    return status, {"Retry-After": "0"}, content


def ranked(label: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    prediction = {"rank": 1, "label": label, "score": 1, "logit": 2, "similarity": 0.5, "source": "bank"}
    result = {"image": "image[0]", "predictions": [prediction], "error": None, "error_code": None, "unknown": 0.25}
    result["unknown_threshold"] = 0.5
    return 200, {}, {"results": [result]}


# ------------------------------------------------------------------------------------------ in a classifier's place
def forms(tmp_path: Path) -> list[Any]:
    """All that a classifier takes, as one list."""
    image = Image.fromarray(RGB)
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    palette = image.quantize(16)
    palette.info["transparency"] = 3
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=turned)
    with Image.open(tmp_path / "turned.jpg") as opened:
        opened.load()
    return [
        write_photo(tmp_path / "a.png"),
        str(write_photo(tmp_path / "b.jpg", seed=1)),
        encoded(image, "WEBP"),
        tmp_path / "turned.jpg",
        opened,
        *(image.convert(mode) for mode in ("RGB", "L", "1", "CMYK", "YCbCr", "LA")),
        clear,
        palette,
        Image.fromarray(np.linspace(0, 65535, 40 * 56, dtype=np.uint16).reshape(40, 56)),
        RGB,
        RGB[:, :, 0],
        RGB[:, :, :1],
        np.asarray(clear),
    ]


def same(ours: Any, theirs: Any) -> None:
    assert [r.image for r in ours] == [r.image for r in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert (one.error, one.unknown) == (other.error, pytest.approx(other.unknown))
        assert [(p.label, p.source) for p in one.predictions] == [(p.label, p.source) for p in other.predictions]
        if other.explanation is not None:
            assert one.explanation.runner_up == other.explanation.runner_up
            assert [name for name, _ in one.explanation.nearest] == [name for name, _ in other.explanation.nearest]
        for p, q in zip(one.predictions, other.predictions, strict=True):
            assert (p.score, p.logit, p.similarity) == pytest.approx((q.score, q.logit, q.similarity), abs=2e-4)


def test_every_form_of_an_image_gets_the_classifiers_answer(
    client: Client, classifier: Classifier, tmp_path: Path
) -> None:
    images = forms(tmp_path)
    same(client.classify(images, top_k=1), classifier.classify(images, top_k=1))
    for image in images[2:6]:
        same([client.classify(image, top_k=1)], [classifier.classify(image, top_k=1)])


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"classes": ["fog", "blank page", "Fog "]},
        {"classes": ("fog", "sea"), "only": True, "top_k": 1},
        {"classes": {"weather": ["fog", "heavy rain"], "sea": "sea"}, "only": True},
        {"classes": {"weather": ["fog", "heavy rain"]}, "top_k": 2},
        {"classes": [" sea  lion", "cafe\u0301", "Red"], "only": True, "explain": True},
    ],
)
def test_every_choice_of_classes_gets_the_classifiers_answer(
    client: Client, classifier: Classifier, choice: dict[str, Any]
) -> None:
    same(client.classify([RGB, RGB[::-1]], **choice), classifier.classify([RGB, RGB[::-1]], **choice))


def test_a_bad_image_fails_alone_in_the_classifiers_words(
    client: Client, classifier: Classifier, tmp_path: Path
) -> None:
    files = [tmp_path / "none.jpg", tmp_path, tmp_path / ("x" * 300)]
    images = [RGB, *files, RGB.astype(float), np.zeros((3, 900, 3), np.uint8), RGB]
    ours = client.classify(images)
    same(ours, classifier.classify(images))
    assert [r.error is None for r in ours] == [True, *[False] * 5, True]
    bad = client.classify([b"no picture", b"", RGB])
    assert [bool(r.error) for r in bad] == [True, True, False]
    assert client.classify(b"no picture").error == bad[0].error
    assert client.classify([]) == []


def test_threads_that_share_a_client_get_each_their_own_answers(client: Client, classifier: Classifier) -> None:
    threads, rounds = 8, 4
    noise = np.random.default_rng(1).integers(0, 256, (threads, rounds, 40, 40, 3), np.uint8)
    choices: list[dict[str, Any]] = [
        {"classes": [f"thing {number}", "fog"], "only": number % 2 == 0, "top_k": 1 + number % 3}
        for number in range(threads)
    ]
    start = threading.Barrier(threads)

    def ask(number: int) -> list[Any]:
        start.wait()
        return [client.classify([image, image[::-1]], **choices[number]) for image in noise[number]]

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(ask, range(threads)))
    for images, choice, of_thread in zip(noise, choices, answers, strict=True):
        for image, results in zip(images, of_thread, strict=True):
            same(results, classifier.classify([image, image[::-1]], **choice))


def test_what_is_too_much_for_a_server_is_sent_in_parts(bundle_path: Path) -> None:
    noise = np.random.default_rng(0)
    sides = (8, 300, 700, 300, 300, *[8] * 30)
    images = [noise.integers(0, 256, (side, side, 3), np.uint8) for side in sides]
    limits = Limits(images=3, body_bytes=2**20)
    with (
        local_server(Settings(bundle=bundle_path, device="cpu", threads=1, limits=limits)) as narrow,
        Client(narrow.url) as client,
    ):
        results = client.classify(images, top_k=1)
        assert [r.image for r in results] == [f"image[{i}]" for i in range(35)]
        assert [r.image for r in results if r.error] == ["image[2]"]
        assert "at most 1 MiB" in str(results[2].error)
        assert not any(r.error for r in client.classify(images[3:], classes={"x": ["y", "z"]}))
        assert client.encode(images[3:]).shape == (32, 8)
        with pytest.raises(ServerError, match="1 MiB") as refused:
            client.encode(images[2])
        assert refused.value.code == "body-too-large"
        for change in (lambda: client.add("x"), lambda: client.remove("x"), client.reload):
            with pytest.raises(ServerError) as refused:
                change()
            assert (refused.value.status, refused.value.code) == (403, "writes-disabled")


def test_embeddings_are_the_classifiers(client: Client, classifier: Classifier, tmp_path: Path) -> None:
    images = [RGB, encoded(Image.fromarray(RGB), "PNG"), write_photo(tmp_path / "a.png")]
    np.testing.assert_allclose(client.encode(images), classifier.embed_images(images), atol=1e-5)
    names = [f"name {i}" for i in range(300)]
    np.testing.assert_allclose(client.embed_names(names), classifier.embed_names(names), atol=1e-5)
    assert len(client.embed_names([])) == len(client.encode([])) == 0
    with pytest.raises(ImageError, match=r"none\.jpg"):
        client.encode([RGB, tmp_path / "none.jpg"])
    with pytest.raises(ImageError, match=r"^image\[1\]: "):
        client.encode([RGB, b"no picture"])
    with pytest.raises(InputError, match="'cat'"):
        client.embed_names("cat")


# ---------------------------------------------------------------------------------------------- the bank, the server
def names(bank: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in bank["classes"]]


@pytest.mark.parametrize("name", ["blue whale", "a/b", "50 % off?", "Öl & Essig #1", "a\\b+c;d=e", "..", "."])
def test_classes_come_and_go(client: Client, name: str) -> None:
    before = client.classes()
    etag = client.add(name, if_match=before["bank"])["etag"]
    after = client.classes()
    assert (after["bank"], names(after)) == (etag, [*names(before), name])
    assert (after["classes"][-1]["origin"], after["classes"][0]["phrases"]) == ("added", [names(before)[0]])
    changed = client.add(name, phrases=["one phrase", "another"], if_match="*")["etag"]
    assert client.classes()["classes"][-1]["phrases"] == ["one phrase", "another"]
    assert client.remove(name, if_match=changed) == before["bank"]


def test_changes_are_told_and_taken_back_and_refused_when_they_come_too_late(client: Client) -> None:
    step, before = len(client.history()), client.classes()["bank"]
    client.add("pink whale")
    assert client.undo() == before
    step = len(client.history())
    client.add("blue whale")
    assert (client.history()[0]["n"], client.history()[0]["by"]) == (step + 1, "sar-serve")
    with pytest.raises(ServerError, match="changed") as refused:
        client.add("red whale", if_match=before)
    assert (refused.value.status, refused.value.code) == (412, "precondition-failed")
    assert client.rollback(step, if_match=client.classes()["bank"]) == before
    with pytest.raises(ServerError, match="blue whale") as refused:
        client.remove("blue whale")
    assert refused.value.status == 404
    for change in (client.add, client.remove):
        with pytest.raises(InputError, match="empty"):
            change(" ")
    with pytest.raises(InputError, match="'sea'"):
        client.add("fog", phrases="sea")


def picture(colour: tuple[int, int, int], seed: int) -> np.ndarray:
    pixels = np.tile(np.array(colour), (32, 32, 1))
    pixels[:, :, seed % 3] += 6 if seed % 6 < 3 else -6
    pixels[seed % 32, seed // 32] -= 1
    return pixels.astype(np.uint8)


def test_photos_of_a_class(client: Client) -> None:
    photos = [picture(VIOLET, seed) for seed in range(20)]  # more than a request has
    added = client.add("iris", photos, if_match=client.classes()["bank"])
    assert [added[k] for k in ("photos", "known", "etag", "created")] == [20, 0, client.classes()["bank"], True]
    again = client.add("iris", photos[:3])
    assert [again[k] for k in ("photos", "known", "etag", "created")] == [20, 3, added["etag"], False]
    expected = {"name": "iris", "origin": "added", "phrases": ["iris"], "photos": 20}
    assert client.classes()["classes"][-1] == expected
    result = client.classify(picture(VIOLET, 9))
    assert result.predictions[0].label == "iris"
    client.add("lime", [picture(LIME, seed) for seed in range(10, 14)])
    with pytest.raises(ServerError) as refused:
        client.add("iris", picture(LIME, 1), strict=True)
    assert refused.value.status == 409
    assert "wrong-class" in [finding["kind"] for finding in client.add("iris", picture(LIME, 1))["findings"]]
    only = client.add("SKU-1", [picture(LIME, 2)], phrases=["a thing"], photos_only=True)
    assert (only["photos"], client.classes()["classes"][-1]["photos_only"]) == (1, True)
    with pytest.raises(ImageError, match=r"image\[1\]"):
        client.add("iris", [photos[0], b"no image"])
    with pytest.raises(ServerError, match="spelled almost like the class 'iris'"):
        client.add("i-ris", strict=True)
    with pytest.raises(InputError, match="photos_only: expected photos"):
        client.add("SKU-2", photos_only=True)
    with pytest.raises(InputError, match="no photo"):
        client.add("iris", [])


def write_picture(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    generator = np.random.default_rng([seed, *colour])
    tint = np.clip(np.array(colour) + generator.normal(0, 45, 3), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(tint + generator.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)).save(path)


def test_photos_move_and_go_and_classes_are_set(client: Client) -> None:
    client.add("iris", [encoded(Image.new("RGB", (32, 32), colour), "PNG") for colour in (VIOLET, LIME)])
    first, second = [one["digest"] for one in client.photos("iris")]
    assert client.move([second], "red")["photos"] == 1
    assert client.remove_photos("red", [second])["name"] == "red"
    assert [one["digest"] for one in client.photos("iris")] == [first]
    assert client.rename("iris", "lily")["name"] == "lily"
    shown = client.set_class("lily", aliases=["flag lily"], threshold=0.4)
    assert (shown["aliases"], shown["threshold"]) == (["flag lily"], 0.4)
    assert "threshold" not in client.set_class("Flag lily", threshold=None)
    with pytest.raises(ServerError, match="meantime"):
        client.rename("lily", "iris", if_match="old")


def test_photos_that_nobody_labelled(here: Path, bundle_path: Path) -> None:
    bank = Path("bank.safetensors")
    for name, colour in {"red": (210, 60, 50), "green": (60, 190, 70), "blue": (50, 70, 220), "iris": VIOLET}.items():
        for number in range(8):
            write_picture(Path("photos", "known", name, f"{number}.png"), colour, number)
            write_picture(Path("photos", "others", name, f"{number}.png"), colour, 50 + number)
    for command in (["add", str(bank), "--photos", "photos/known"], ["fit", str(bank)]):
        result = CliRunner().invoke(sar_bank, command)
        assert result.exit_code == 0, result.output
    paths = [*map(str, sorted(Path("photos/others").rglob("*.png")))]
    options: dict[str, Any] = {"device": "cpu", "threads": 1, "limits": Limits(images=6)}
    settings = Settings(bundle_path, bank, key="k", **options)
    with local_server(settings) as local, Client(local.url, "k") as client:
        before = client.classes()["bank"]
        groups = client.suggest(paths)
        assert sorted(photo for group in groups["groups"] for photo in group["photos"]) == [*range(len(paths))]
        assert {label["photo"] for label in groups["labels"]} <= {*range(len(paths))}
        images = [base64.b64encode(Path(path).read_bytes()).decode() for path in paths[::7]]
        url, key = f"{local.url}/v1/learn", {"Authorization": "Bearer k"}
        learned = httpx2.post(url, json={"images": images, "dry_run": True}, headers=key).json()
        keys = {note["key"] for note in (*learned["look_first"], *learned["examples"])}
        assert keys
        assert keys <= {f"images[{number}]" for number in range(5)}
        answer = httpx2.post(url, json={"images": [images[0], "bm8="]}, headers=key)
        assert (answer.status_code, answer.json()["detail"][:11]) == (415, "images[1]: ")
        dry = client.learn(paths, all_known=True, dry_run=True)
        assert client.classes()["bank"] == before == dry["bank"]
        with pytest.raises(ServerError) as refused:
            client.learn(paths, if_match="other")
        assert refused.value.status == 412
        report = client.learn(paths, all_known=True, if_match=before)
        assert (report["photos"], report["all_known"], report["bank"]) == (32, True, client.classes()["bank"])
        assert report["bank"] != before
        assert {note["key"] for note in report["look_first"]} <= {f"embeddings[{n}]" for n in range(len(paths))}
        for name in ("photos", "unknown", "changed", "classes"):
            assert report[name] == dry[name]
        with pytest.raises(ImageError, match="absent"):
            client.learn([paths[0], "absent.png"])
        for method in (client.learn, client.suggest):
            with pytest.raises(InputError, match="expected images"):
                method([])


def test_more_classes_than_a_page_holds() -> None:
    def page(names: range, bank: str) -> tuple[int, dict[str, str], Any]:
        entries = [{"name": str(i), "origin": "bundle", "phrases": [str(i)]} for i in names]
        return 200, {}, {"classes": entries, "count": 1500, "bank": bank}

    one, two = range(1000), range(1000, 1500)
    with scripted(page(one, "a"), page(two, "b"), page(one, "b"), page(two, "b")) as state, Client(state.url) as client:
        bank = client.classes()
    assert (bank["bank"], names(bank)) == ("b", [*map(str, range(1500))])
    queries = [line.partition("?")[2] for line, _, _ in state.requests]
    assert queries == [f"offset={i}&limit=1000" for i in (0, 1000) * 2]


def test_fields_of_a_newer_server_are_ignored() -> None:
    more = {"newer": 1}
    best = {"rank": 1, "label": "cat", "score": 0.9, "logit": 1.0, "similarity": 0.5, "source": "bank"} | more
    why = {"margin": None, "runner_up": None, "nearest": [], "background": None} | more
    result = {
        "predictions": [best],
        "error": None,
        "unknown": 0.1,
        "unknown_threshold": None,
        "explanation": why,
    } | more
    with scripted((200, {}, {"results": [result]} | more)) as state, Client(state.url) as client:
        assert client.classify(RGB).label == "cat"


def test_what_the_server_tells_of_itself(client: Client, classifier: Classifier) -> None:
    assert client.ready() is True
    model = client.model()
    assert model["digest"] == classifier.bundle.manifest.digest == client.reload()
    assert model["limits"]["images"] == 32


# ------------------------------------------------------------------------------------------------------ what goes wrong
def test_an_error_says_what_the_server_says(server: Local) -> None:
    with Client(server.url, "another key") as client, pytest.raises(ServerError) as refused:
        client.model()
    error = refused.value
    assert isinstance(error, SarInferError)
    assert (error.status, error.code) == (401, "unauthorised")
    assert error.detail.startswith("the key in the header Authorization is not this server's; expected ")
    assert str(error) == f"{error.detail} (401, unauthorised, request {error.request_id})"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - as processes send it to each other
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_server_that_is_not_there_or_slow_or_below_a_path() -> None:
    for call in ("model", "ready"):
        with Client("http://127.0.0.1:9") as client, pytest.raises(ServerError) as refused:
            getattr(client, call)()
        assert (refused.value.status, refused.value.code) == (None, "unreachable")
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith("http://127.0.0.1:9: no answer")
    with scripted((200, {}, {}), delay=1) as state, Client(state.url, timeout=0.1) as client:
        with pytest.raises(ServerError) as refused:
            client.model()
        assert (refused.value.code, len(state.requests)) == ("timeout", 1)
    with scripted((200, {}, {})) as state:
        for end in ("/prefix", "/prefix/"):
            with Client(state.url + end) as client:
                assert client.model() == {}
        assert [line for line, _, _ in state.requests] == ["GET /prefix/v1/model"] * 2


def test_what_is_no_url_or_key_is_refused_at_once() -> None:
    for url in ("localhost:8000", "", "ftp://host", "http://", "/v1"):
        with pytest.raises(InputError, match="url"):
            Client(url)
    for key in ("", "schlüssel", "two\nlines"):
        with pytest.raises(InputError, match="key"):
            Client("http://localhost", key)


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (200, b"<html>welcome</html>", "unreadable-answer", "<html>welcome</html>"),
        (200, [], "unreadable-answer", "sar-serve"),
        (200, b"\xff\xfe", "unreadable-answer", "sar-serve"),
        (200, b"[" * 100_000, "unreadable-answer", "sar-serve"),
        (307, b"", "http-307", "status 307"),
        (400, {"error": {"message": "no input", "code": "bad-request"}}, "bad-request", "no input"),
        (400, {"error": {"message": "no input", "code": None}}, "http-400", "no input"),
        (400, {"error": "no input"}, "http-400", "no input"),
        (404, problem(404, "not-found")[2], "not-found", "because of"),
        (413, b"<h1>Request\nEntity Too Large</h1>", None, "Request Entity Too Large"),
        (502, b"<h1>" + b"x" * 5000, "http-502", "x"),
        (504, [1], "http-504", "[1]"),
    ],
)
def test_other_answers_are_told_once_and_in_one_line(status: int, body: Any, code: Any, words: str) -> None:
    with scripted((status, {}, body)) as state, Client(state.url) as client:
        if code is None:
            refused = client.classify(RGB)
            message = refused.error
        else:
            with pytest.raises(ServerError) as raised:
                client.classify(RGB)
            message = str(raised.value)
            assert (raised.value.status, raised.value.code) == (status, code)
        assert len(state.requests) == 1
    assert words in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(("status", "code"), [(429, "overloaded"), (503, "draining")])
def test_a_busy_server_is_asked_again(status: int, code: str) -> None:
    busy = problem(status, code)
    with scripted(busy, busy, ranked("fog")) as state, Client(state.url) as client:
        assert client.classify(RGB).label == "fog"
        assert len(state.requests) == 3
    with scripted(busy) as state, Client(state.url, retries=1) as client:
        with pytest.raises(ServerError, match=code):
            client.classify(RGB)
        assert len(state.requests) == 2
    with scripted((503, {}, {"ready": False})) as state, Client(state.url) as client:
        assert (client.ready(), len(state.requests)) == (False, 1)


@pytest.mark.parametrize(
    ("pause", "seconds"), [("3", 3), ("86400", module.LONGEST_PAUSE), ("soon", 1), ("-1", 1), (None, 1)]
)
def test_the_pause_is_the_servers_within_reason(
    pause: str | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pauses.append))
    status, _, content = problem(429, "overloaded")
    busy = status, {} if pause is None else {"Retry-After": pause}, content
    with scripted(busy, ranked("fog")) as state, Client(state.url) as client:
        client.classify(RGB)
    assert seconds <= pauses[0] <= 1.2 * seconds


def test_a_stream_takes_images_as_it_needs_them() -> None:
    indices = []

    def images() -> Iterator[Any]:
        for index in range(1000):
            indices.append(index)
            yield RGB

    with scripted(ranked("fog")) as state, Client(state.url) as client:
        stream = client.stream(images(), batch_size=1)
        assert next(stream).predictions[0].label == "fog"
        stream.close()  # type: ignore[attr-defined]
        with pytest.raises(InputError, match="batch_size"):
            next(client.stream([RGB], batch_size=0))
    assert len(indices) == 2


# ------------------------------------------------------------------------------------------------------- the package
def test_importing_costs_little_and_files_need_no_imaging(server: Local, tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match=r"pip install .\.\[client\]"):
        Client("http://localhost")
