"""PhotoPrism's request and answer by their shapes; PhotoPrism itself was not run."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from PIL import Image
from support.pictures import jpeg
from support.servers import Local, serving

from sar_infer import Classifier
from sar_infer.cli.bank import main as sar_bank

PATH = "/api/v1/vision/labels"
CLOTHES = Path(__file__).parents[3] / "examples" / "clothes"
RED, BLUE = jpeg(colour=(220, 20, 20)), jpeg((50, 80), (20, 30, 200))


def uri(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


def post(server: Local, *images: str, query: dict[str, Any] | None = None, **more: Any) -> httpx2.Response:
    call = {"id": "3487da77", "model": "", "images": images, **more}
    return httpx2.post(server.url + PATH, json=call, params=query, timeout=30)


def test_thumbnails_of_one_photo_are_merged(server: Local, classifier: Classifier) -> None:
    content = post(server, uri(RED), uri(BLUE), uri(RED)).json()
    assert (content["id"], content["code"], content["model"]["name"]) == ("3487da77", 200, "sar-clip")
    expected = dict[str, float]()
    for result in classifier.classify([RED, BLUE]):
        expected[result.label or ""] = max(result.score or 0, expected.get(result.label or "", 0))
    labels = content["result"]["labels"]
    assert {one["name"]: one["confidence"] for one in labels} == pytest.approx(expected, abs=1e-5)
    assert [one["confidence"] for one in labels] == sorted((one["confidence"] for one in labels), reverse=True)
    assert {one["source"] for one in labels} == {"image"}


@pytest.mark.parametrize(
    ("images", "more", "status", "message"),
    [
        ((), {}, 422, "images"),
        (("https://photos.example/1.jpg",), {}, 422, "images[0]: URLs are not fetched"),
        ((uri(RED), uri(b"no image")), {}, 415, "images[1]"),
        ((uri(RED),) * 4, {}, 413, "3 images"),
        ((uri(RED),), {"url": "https://photos.example/1.jpg"}, 422, "url"),
        ((uri(RED),), {"query": {"several": True}}, 422, "fitted class model"),
        ((uri(RED),), {"query": {"bank": "other"}}, 422, "start it with --banks"),
    ],
)
def test_errors(server: Local, images: tuple[str, ...], more: dict[str, Any], status: int, message: str) -> None:
    answer = post(server, *images, **more)
    assert (answer.status_code, answer.json()["code"]) == (status, status)
    assert message in answer.json()["error"]


def test_unknown_is_an_empty_list_and_several_are_several(tmp_path: Path) -> None:
    bank = str(tmp_path / "clothes.safetensors")
    done = CliRunner().invoke(sar_bank, ["create", bank, "--photos", str(CLOTHES / "train")])
    assert done.exit_code == 0, done.output
    stream = io.BytesIO()
    Image.effect_noise((224, 224), 90).convert("RGB").save(stream, "PNG")
    shirt = next((CLOTHES / "test" / "shirt").glob("*.jpg"))
    with serving("--bank", bank, "--doors", "photoprism", "--workers", "0", key="k") as server:
        for image, query in ((stream.getvalue(), {}), (shirt.read_bytes(), {}), (shirt.read_bytes(), {"several": "1"})):
            call = {"images": [uri(image)]}
            url = server.url + PATH
            assert httpx2.post(url, json=call).status_code == 401
            labels = httpx2.post(url, json=call, params=query, headers=server.headers, timeout=60).json()["result"]
            own = {"images": [base64.b64encode(image).decode()], **({"several": True} if query else {"unknown": True})}
            answer = httpx2.post(f"{server.url}/v1/classify", json=own, headers=server.headers, timeout=60).json()
            (result,) = answer["results"]
            expected = result["labels"] if query else result["predictions"][:1]
            assert {one["name"] for one in labels["labels"]} == {one["label"] for one in expected}
            assert (image == shirt.read_bytes()) == bool(labels["labels"])
