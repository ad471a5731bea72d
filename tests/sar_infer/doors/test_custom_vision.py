"""The real client, with its endpoint and key changed and nothing else."""

from __future__ import annotations

import datetime
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from PIL import Image
from support.pictures import jpeg
from support.servers import Server, serving

from sar_infer.cli.bank import main as sar_bank

vision = pytest.importorskip("azure.cognitiveservices.vision.customvision.prediction")
msrest = pytest.importorskip("msrest.authentication")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client, which nobody maintains
ROOT = Path(__file__).parents[3]
CLOTHES = ROOT / "examples" / "clothes"
PROJECT = "5f0c7b62-3c4d-4c7e-9a70-1d2f3a4b5c6d"
FORMATS = "formats=JPEG,PNG,GIF,BMP"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve two banks with a key: one of clothes, with photos, and one of names only."""
    folder = tmp_path_factory.mktemp("banks")
    for name, *arguments in (("clothes", "--photos", str(CLOTHES / "train")), ("names", "--classes", "mug,teapot")):
        file = str(folder / f"{name}.safetensors")
        done = CliRunner().invoke(sar_bank, ["create", file, *arguments])
        assert done.exit_code == 0, done.output
    options = ("--banks", str(folder), "--doors", "custom-vision", "--set", FORMATS, "--workers", "0")
    with serving(*options, key="k") as server:
        yield server


def client_of(server: Server, key: str = "k") -> Any:
    credentials = msrest.ApiKeyCredentials(in_headers={"Prediction-key": key})
    return vision.CustomVisionPredictionClient(server.url, credentials)


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    return client_of(server)


def in_format(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(jpeg(colour=(220, 20, 20)))).save(stream, kind)
    return stream.getvalue()


def own(server: Server, image: bytes, **query: Any) -> dict[str, Any]:
    headers = {"Content-Type": "image/jpeg", **server.headers}
    answer = httpx2.post(f"{server.url}/v1/classify", params=query, content=image, headers=headers, timeout=60)
    result: dict[str, Any] = answer.json()["results"][0]
    return result


def test_photos_are_classified_as_by_our_own_route(server: Server, client: Any) -> None:
    photos = sorted(CLOTHES.rglob("*.jpg"))[:200]
    assert photos
    ids = dict[str, uuid.UUID]()
    for photo in photos:
        answer = client.classify_image(PROJECT, "clothes", photo.read_bytes())
        expected = own(server, photo.read_bytes(), bank="clothes", unknown=True, top_k=500)
        if not expected["predictions"]:
            (one,) = answer.predictions
            assert (one.tag_type, one.tag_name, one.probability) == ("Negative", "Negative", expected["unknown"])
            continue
        scores = {one["label"]: one["score"] for one in expected["predictions"]}
        assert {one.tag_name: one.probability for one in answer.predictions} == pytest.approx(scores, abs=1e-6)
        assert [one.tag_name for one in answer.predictions] == [*scores]
        assert {one.tag_type for one in answer.predictions} == {"Regular"}
        for one in answer.predictions:
            assert ids.setdefault(one.tag_name, one.tag_id) == one.tag_id
    assert len({*ids.values()}) == len(ids) > 1


def test_ids_and_times_are_what_the_client_parses(server: Server, client: Any) -> None:
    image = jpeg()
    answers = [client.classify_image_with_no_store(PROJECT, "names", image) for _ in range(2)]
    answers.append(client.classify_image(PROJECT, "clothes", image))
    for answer in answers:
        uuid.UUID(answer.id)
        assert answer.project == PROJECT
        assert abs(answer.created - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(days=1)
    assert len({answer.id for answer in answers}) == 3
    assert answers[0].iteration == answers[1].iteration != answers[2].iteration


def test_an_unknown_image_has_the_negative_tag(client: Any) -> None:
    noise = Image.effect_noise((224, 224), 90).convert("RGB")
    stream = io.BytesIO()
    noise.save(stream, "PNG")
    (one,) = client.classify_image(PROJECT, "clothes", stream.getvalue()).predictions
    assert (one.tag_name, one.tag_type) == ("Negative", "Negative")
    assert 0 < one.probability <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
@pytest.mark.parametrize("sent", [bytes, io.BytesIO])
def test_all_formats_of_the_service(client: Any, kind: str, sent: Any) -> None:
    """The client sends bytes and streams as a part without a file name."""
    answer = client.classify_image(PROJECT, "names", sent(in_format(kind)))
    assert {one.tag_name for one in answer.predictions} == {"mug", "teapot"}


def test_a_wrong_key(server: Server) -> None:
    for key in ("wrong", ""):
        with pytest.raises(vision.models.CustomVisionErrorException) as caught:
            client_of(server, key).classify_image(PROJECT, "names", jpeg())
        assert caught.value.response.status_code == 401
        assert caught.value.error.code == "Forbidden"
        assert "expected the header 'Prediction-Key: KEY'" in caught.value.message


@pytest.mark.parametrize(
    ("name", "image", "status", "code", "message"),
    [
        ("missing", jpeg(), 404, "NotFound", "no bank missing"),
        ("..", jpeg(), 404, "NotFound", ""),
        ("sp ace", jpeg(), 404, "NotFound", "a published name is a bank of --banks"),
        ("names", b"no image", 415, "BadRequestImageFormat", "not an image"),
        ("names", jpeg()[:300], 422, "BadRequestImageStream", "image: "),
        ("names", b"\xff\xd8" + bytes(11 * 2**20), 413, "BadRequestImageSizeBytes", "at most 10 MiB"),
    ],
)
def test_errors_have_the_shape_of_the_service(
    client: Any, name: str, image: bytes, status: int, code: str, message: str
) -> None:
    with pytest.raises(vision.models.CustomVisionErrorException) as caught:
        client.classify_image(PROJECT, name, image)
    error = caught.value
    assert (error.response.status_code, error.error.code) == (status, code)
    assert message in error.message


def test_urls_are_not_fetched(client: Any) -> None:
    with pytest.raises(vision.models.CustomVisionErrorException, match="URLs are not fetched") as caught:
        client.classify_image_url(PROJECT, "names", "http://169.254.169.254/latest")
    assert (caught.value.response.status_code, caught.value.error.code) == (400, "BadRequest")


def test_paths_of_the_exported_container_and_both_bodies() -> None:
    with serving("--doors", "custom-vision", "--workers", "0") as server:
        form = {"files": {"imageData": ("a.jpg", jpeg())}}
        raw = {"content": jpeg(), "headers": {"Content-Type": "application/octet-stream"}}
        model = f"/{PROJECT}/classify/iterations/anything"
        for path in (
            "/image",
            f"{model}/image",
            f"{model}/image/nostore",
            f"/customvision/v3.1/prediction{model}/image",
        ):
            for body in (form, raw):
                answer = httpx2.post(server.url + path, timeout=60, **body)
                assert (answer.status_code, len(answer.json()["predictions"])) == (200, 500), path
        wrong = [
            (httpx2.post(f"{server.url}/url", json={"url": "x"}), 400),
            (httpx2.post(f"{server.url}/image", files={"image": jpeg()}), 400),
            (httpx2.post(f"{server.url}/image", files=[("imageData", jpeg())] * 2), 400),
            (httpx2.post(f"{server.url}/image", json={}), 415),
            (httpx2.post(f"{server.url}/image"), 415),
            (httpx2.post(f"{server.url}/customvision/v3.1/prediction/1/classify/iterations/x/image"), 422),
            (httpx2.get(f"{server.url}/customvision/v3.1/training/projects"), 404),
            (httpx2.get(f"{server.url}/image"), 405),
        ]
        for answer, status in wrong:
            assert answer.status_code == status
            assert {*answer.json()} == {"code", "message"}


def test_without_the_option_there_is_no_door(tmp_path: Path) -> None:
    with serving("--workers", "0") as server:
        answer = httpx2.post(f"{server.url}/image", content=jpeg())
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
