"""One mixed set of classes has one answer on every surface.

Trained, named, by name and photos, by photos only, background, and one with a threshold.

The expectation is the formula of the design, class by class in float64, from the rows of the encoders.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.banks import photo_set
from support.bulk_runs import answered_here
from support.bundles import BANK_NAMES, DIM, name_rows, write_bundle
from support.many import read_rows
from support.photos import write_photo
from support.servers import Local, local_server
from support.trained import by_hand, example_trained, known_of, photo_set_of, softmax

from sar_infer import Classifier, Client
from sar_infer.bank import PhotoSet, add, set_class
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.cli.classify import main
from sar_infer.encoders.processor import X86, processor
from sar_infer.server.settings import Settings
from sar_train.export import shrink

__all__ = ["answered_here"]
TRAINED = example_trained(BANK_NAMES[:3])
NAMED = "teal"
"""Added to the bank by its name."""
CALLED = "violet"
"""Comes with the call."""
PICTURED, SKU = "amber", "SKU-9"
"""Added to the bank by name and photos, and by photos only."""
SETS = {PICTURED: photo_set("a", "b", "c", dim=DIM), SKU: photo_set("d", "e", photos_only=True, dim=DIM)}
BACKGROUND = BANK_NAMES[3]
SATURATES = processor() == X86
"""INT8 adds pairs of products in 16 bits here, and 2 * 255 * 127 does not fit: random weights may lose anything."""
Answer = dict[str, Any]
"""Score by label, and with ``unknown`` the verdict."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen bundle with everything: class model, smaller graphs, an edited bank."""
    folder = tmp_path_factory.mktemp("one")
    opened = open_bundle(write_bundle(folder / "first", trained=TRAINED))
    added = [NAMED, PICTURED, SKU]
    bank = add(opened.bank, added, name_rows(added), photos=SETS)
    bank = set_class(set_class(bank, BACKGROUND, background=True), PICTURED, threshold=0.2)
    freeze(opened, bank, folder / "frozen", command="tests")
    samples = [write_photo(folder / "photos" / f"{seed}.png", seed) for seed in range(100, 144)]
    with mock.patch.multiple(shrink, LEAST_COSINE=-1, LEAST_AGREEMENT=0):
        shrink.shrink(folder / "frozen", folder / "bundle", samples, ["fp16", "int8"], command="tests")
    return folder / "bundle"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [write_photo(folder / f"{seed}.png", seed, (48 + seed % 2, 40 + seed % 3)) for seed in range(6)]


@pytest.fixture(scope="module")
def server(bundle: Path) -> Any:
    with local_server(Settings(bundle=bundle, device="cpu", threads=1)) as local:
        yield local


def expected(
    bundle: Path,
    images: list[Path],
    names: tuple[str, ...],
    shown: Mapping[str, PhotoSet] | None = None,
    precision: str = "fp32",
) -> list[dict[str, float]]:
    """Scores of all classes but background, by the formula; a smaller graph gives rows of images and of the call."""
    classifier = Classifier.open(bundle, "cpu", precision=precision)
    rows, text = classifier.embed_images(images), name_rows(names)
    if precision != "fp32":
        text[names.index(CALLED)] = classifier.embed_names([CALLED])[0]
    known = known_of(names, TRAINED, SETS, shown or {})
    joint = softmax(by_hand(TRAINED.model, rows, text, known))
    scores = softmax(by_hand(TRAINED.model, rows, text, known)[:, :-1])
    return [
        {name: float(score) for name, score in zip(names, row, strict=True) if name != BACKGROUND}
        | {"unknown": float(unknown)}
        for row, unknown in zip(scores, joint[:, -1], strict=True)
    ]


BOXES = ((0, 0, 1, 1), (0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1))


def expected_of_crops(bundle: Path, images: list[Path], names: tuple[str, ...]) -> list[dict[str, float]]:
    """The largest probability of the image and its quarters, *unknown* among them, and the boxes of the labels."""
    classifier, known = Classifier.open(bundle, "cpu"), known_of(names, TRAINED, SETS)
    answers = []
    for path in images:
        image = np.asarray(Image.open(path))
        below, right = -(-image.shape[0] // 2), -(-image.shape[1] // 2)
        crops = [
            image,
            *(
                half[:, side]
                for half in (image[:below], image[-below:])
                for side in (slice(right), slice(-right, None))
            ),
        ]
        joint = softmax(by_hand(TRAINED.model, classifier.embed_images(crops), name_rows(names), known))
        scores = {name: joint[:, column] for column, name in enumerate(names) if name != BACKGROUND}
        answer = {name: float(of_crops.max()) for name, of_crops in scores.items()}
        shown = [name for name, score in answer.items() if score > (0.2 if name == PICTURED else 0.5)]
        boxes = {f"box of {name}": int(scores[name].argmax()) for name in shown}
        answers.append(answer | boxes | {"unknown": float(joint[:, -1].min())})
    return answers


OWN = (*BANK_NAMES, NAMED, PICTURED, SKU)
ALL = (*OWN, CALLED)
ONLY = (*BANK_NAMES[:3], NAMED, SKU, CALLED)


def result_scores(result: Mapping[str, Any]) -> Answer:
    scores = {p["label"]: p["score"] for p in result["predictions"]} | {"unknown": result["unknown"]}
    return scores | boxes(result.get("labels"))


def boxes(labels: Any) -> Answer:
    """Number of the crop by label."""
    named = (one if isinstance(one, dict) else one._asdict() for one in labels or ())
    return {f"box of {one['label']}": BOXES.index(tuple(one["box"])) for one in named}


def in_python(bundle: Path, images: list[Path], **options: Any) -> list[Answer]:
    classifier = Classifier.open(bundle, "cpu", **options)
    results = classifier.classify(images, [CALLED], top_k=99)
    return [result_scores(dataclasses.asdict(result)) for result in results]


def command(bundle: Path, images: list[Path], folder: Path, *more: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "names.txt").write_text(f"{CALLED}\n", "utf-8")
    arguments = [*map(str, images), "--bundle", str(bundle), "--classes", str(folder / "names.txt")]
    call = [*arguments, "--top-k", "99", "--device", "cpu", *more]
    done = CliRunner().invoke(main, call, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def by_command(bundle: Path, images: list[Path], folder: Path, *more: str) -> list[Answer]:
    return [
        result_scores(results) for results in json.loads(command(bundle, images, folder, "--format", "json", *more))
    ]


def row_scores(rows: list[dict[str, Any]], images: list[Path]) -> list[Answer]:
    by_key = {Path(row["key"]).name: row for row in rows}
    ordered = [by_key[path.name] for path in images]
    return [
        dict(zip(row["labels"], row["scores"], strict=True)) | {"unknown": row["unknown"]} | boxes(row.get("several"))
        for row in ordered
    ]


def in_parts(bundle: Path, images: list[Path], folder: Path, *more: str) -> list[Answer]:
    command(bundle, images, folder, "--out", str(folder / "rows"), *more)
    return row_scores(read_rows(folder / "rows"), images)


def in_lines(bundle: Path, images: list[Path], folder: Path, *more: str) -> list[Answer]:
    command(bundle, images, folder, "--out", str(folder / "lines"), "--format", "jsonl", *more)
    return row_scores(read_rows(folder / "lines"), images)


@pytest.mark.usefixtures("answered_here")
@pytest.mark.parametrize("surface", [by_command, in_parts, in_lines])
def test_the_command(bundle: Path, images: list[Path], tmp_path: Path, surface: Callable[..., list[Answer]]) -> None:
    agree(surface(bundle, images, tmp_path), expected(bundle, images, ALL))
    agree(surface(bundle, images, tmp_path / "several", "--several"), expected_of_crops(bundle, images, ALL))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_python_in_every_precision(bundle: Path, images: list[Path], precision: str) -> None:
    agree(in_python(bundle, images, precision=precision), expected(bundle, images, ALL, precision=precision))
    first, second = (
        Classifier.open(bundle, "cpu", precision=kind).embed_images(images) for kind in ("fp32", precision)
    )
    apart = float(np.abs(first - second).max())
    assert (apart > 0) is (precision != "fp32")
    assert apart < 0.05 or (precision == "int8" and SATURATES)


def test_several_in_python(bundle: Path, images: list[Path]) -> None:
    results = Classifier.open(bundle, "cpu").classify(images, [CALLED], top_k=99, several=True)
    answers = expected_of_crops(bundle, images, ALL)
    agree([result_scores(dataclasses.asdict(result)) for result in results], answers)
    assert {len(result.labels) for result in results} == {1, 2}
    assert any(f"box of {PICTURED}" in answer for answer in answers), "its own threshold counts"


def test_by_photos_in_python(bundle: Path, images: list[Path]) -> None:
    """By photos, by name and photos, by photos only, and more photos of a trained class, beside all the others."""
    shown = {CALLED: photo_set_of(5, 2), "SKU-12345": photo_set_of(6, 4, photos_only=True), "green": photo_set_of(8, 3)}
    classifier = Classifier.open(bundle, "cpu")
    classes = classifier.class_set(photos=shown)
    rows = classifier.embed_images(images)
    names = tuple(classes.names)
    assert set(names) == {*OWN, CALLED, "SKU-12345"}
    for result, scores in zip(
        classifier.decide(classes, 99)(rows), expected(bundle, images, names, shown), strict=True
    ):
        answer = {p.label: p.score for p in result.predictions} | {"unknown": result.unknown}
        assert answer == pytest.approx(scores, abs=1e-5)


def posted(server: Local, path: str, **request: Any) -> Any:
    answer = httpx2.post(server.url + path, timeout=30, **request)
    assert answer.status_code == 200, answer.text
    return answer.json()


QUERY = {"classes": CALLED, "top_k": "99"}


def by_json(server: Local, images: list[Path], **more: bool) -> list[Answer]:
    body = {"images": [encoded(path) for path in images], "classes": [CALLED], "top_k": 99, **more}
    return [result_scores(results) for results in posted(server, "/v1/classify", json=body)["results"]]


def by_bytes(server: Local, images: list[Path], **more: bool) -> list[Answer]:
    headers = {"Content-Type": "image/png"}
    return [
        result_scores(
            posted(server, "/v1/classify", params=QUERY | more, content=path.read_bytes(), headers=headers)["results"][
                0
            ]
        )
        for path in images
    ]


def by_form(server: Local, images: list[Path], **more: bool) -> list[Answer]:
    files = [("image", (path.name, path.read_bytes(), "image/png")) for path in images]
    answer = posted(server, "/v1/classify", params=QUERY | more, files=files)
    return [result_scores(results) for results in answer["results"]]


def by_client(server: Local, images: list[Path], **more: bool) -> list[Answer]:
    with Client(server.url) as client:
        results = client.classify(images, [CALLED], top_k=99, **more)
    return [result_scores(dataclasses.asdict(result)) for result in results]


@pytest.mark.parametrize("surface", [by_json, by_bytes, by_form, by_client])
def test_the_server_and_its_clients(
    bundle: Path, images: list[Path], server: Local, surface: Callable[..., list[Answer]]
) -> None:
    agree(surface(server, images), expected(bundle, images, ALL))
    agree(surface(server, images, several=True), expected_of_crops(bundle, images, ALL))


def test_zero_shot(bundle: Path, images: list[Path], server: Local) -> None:
    for several, answers in ((False, expected), (True, expected_of_crops)):
        for path, scores in zip(images, answers(bundle, images, ONLY), strict=True):
            body = {
                "inputs": encoded(path),
                "parameters": {"candidate_labels": list(ONLY), "multi_label": several},
            }
            results = posted(server, "/v1/zero-shot-image-classification", json=body)
            expected_scores = {name: score for name, score in scores.items() if name in ONLY}
            assert {item["label"]: item["score"] for item in results} == pytest.approx(expected_scores, abs=1e-5)


def test_the_inference_protocol(bundle: Path, images: list[Path], server: Local) -> None:
    body = {
        "inputs": [
            {"name": "IMAGE", "datatype": "BYTES", "shape": [len(images)], "data": [encoded(path) for path in images]},
            {"name": "CLASSES", "datatype": "BYTES", "shape": [1], "data": [CALLED]},
        ]
    }
    results = {item["name"]: item for item in posted(server, "/v2/models/sar-clip/infer", json=body)["outputs"]}
    scores, labels = (np.array(results[name]["data"]).reshape(len(images), -1) for name in ("SCORES", "LABELS"))
    for row, expected_scores in enumerate(expected(bundle, images, ALL)):
        del expected_scores["unknown"]
        assert dict(zip(labels[row], scores[row], strict=True)) == pytest.approx(expected_scores, abs=1e-5)


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def agree(results: list[Answer], expected_scores: list[dict[str, float]]) -> None:
    """The same scores, and the same probability of *unknown*."""
    for answer, scores in zip(results, expected_scores, strict=True):
        assert answer == pytest.approx(scores, abs=1e-5)
