"""Readers of the one file without the package: Python, Node, C, Triton's configuration, and the page in Chromium."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from support.browser import drop, labels
from support.bundles import PREPROCESS, write_bundle
from support.one_file import BANKS, soft
from support.trained import unit_rows_of

from examples.browser.prepare import RUNTIME, fetch_runtime, prepare
from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.images.preprocess import to_input
from sar_infer.results import DecisionOptions
from sar_train.export.one_file import write_one_file

ROOT = Path(__file__).parents[2]
READERS, CLOTHES = ROOT / "examples" / "readers", ROOT / "examples" / "clothes"
PHOTOS = sorted((CLOTHES / "test").glob("*/0[0-2].jpg"))
TEACH = """
import { readFileSync, writeFileSync } from 'node:fs';
const [folder, file, question, bank] = process.argv.slice(1);
const { openModel, probabilities, taughtLogits, taughtWeights } = await import(`${folder}/model.js`);
const { withClasses } = await import(`${folder}/tensors.js`);
const { classes, rows, logits } = JSON.parse(readFileSync(question));
const model = await openModel({ InferenceSession: { create: async () => null } }, readFileSync(file));
const taught = Object.entries(classes).map(([name, photos], which) => ({
  name, rows: photos.map((row) => Float32Array.from(row)),
  digests: photos.map((_, n) => new Uint8Array(32).fill(16 * which + n)),
  total: photos[0].map((_, place) => photos.reduce((sum, row) => sum + row[place], 0)) }));
if ('factor' in model.teaching) {
  const weights = taughtWeights(model, taught);
  const made = rows.map((row, n) => probabilities(taughtLogits(model, { embedding: row, logits: logits[n] }, weights)));
  writeFileSync(bank, Buffer.from(await (await withClasses(model.bank, taught)).arrayBuffer()));
  console.log(JSON.stringify(made));
} else console.log('null');
"""


def needs(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs the program {program}")
    return path


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """The bundle that ships with six garments by photos."""
    return Classifier.from_examples(CLOTHES / "train", device="cpu")


@pytest.fixture(scope="module")
def shop(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.onnx"
    write_one_file(classifier.bundle, classifier.bank, path)
    return path


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """onnxruntime-web, from npm."""
    needs("npm")
    folder = tmp_path_factory.mktemp("runtime")
    try:
        fetch_runtime(folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm cannot fetch onnxruntime-web: {error}")
    assert {path.name for path in folder.iterdir()} == {*RUNTIME}
    return folder


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The photos as PPM."""
    folder = tmp_path_factory.mktemp("pixels")
    paths = [folder / f"{number}.ppm" for number in range(len(PHOTOS))]
    for photo, path in zip(PHOTOS, paths, strict=True):
        Image.open(photo).convert("RGB").save(path)
    return paths


def check(lines: Sequence[str], classifier: Classifier, *, most: float) -> None:
    """Compare a reader's lines with the package, scores up to a difference."""
    classes = classifier.class_set()
    decide = classifier.decide(classes, 1, DecisionOptions(unknown=True))
    rows = classifier.embed_images(PHOTOS)
    scores = classifier.scores(classifier.logits(rows, classes))
    assert len(lines) == len(PHOTOS)
    for line, expected, result in zip(map(json.loads, lines), scores, decide(rows), strict=True):
        assert line["answer"] == (result.predictions[0].label if result.predictions else None)
        np.testing.assert_allclose(line["scores"], expected, atol=most)
        assert line["unknown"] == pytest.approx(result.unknown, abs=most)


# ----------------------------------------------------------------------------------------------------------- readers
def test_python_without_the_package(shop: Path, classifier: Classifier) -> None:
    program = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
    program += "sys.exit(any(name.startswith('sar_') for name in sys.modules))"
    command = [sys.executable, "-c", program, READERS / "classify.py", shop, *PHOTOS]
    check(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines(), classifier, most=1e-3
    )


@pytest.mark.parametrize("hidden", [None, 30_000])
def test_python_reads_wide_grey_as_the_package(
    hidden: int | None, shop: Path, classifier: Classifier, tmp_path: Path
) -> None:
    grey = np.asarray(Image.open(PHOTOS[0]).convert("L")).astype(np.uint16) * 200
    grey[:20] = 30_000
    Image.fromarray(grey).save(tmp_path / "grey.png", **({} if hidden is None else {"transparency": hidden}))
    command = [sys.executable, READERS / "classify.py", shop, tmp_path / "grey.png"]
    line = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    classes = classifier.class_set()
    (scores,) = classifier.scores(classifier.logits(classifier.embed_images([tmp_path / "grey.png"]), classes))
    np.testing.assert_allclose(line["scores"], scores, atol=1e-3)


def test_python_refuses_floating_point(shop: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / "f.tif")
    process = subprocess.run(
        [sys.executable, READERS / "classify.py", shop, tmp_path / "f.tif"], capture_output=True, text=True
    )
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1
    assert "convert the image to 8 bits" in process.stderr


def test_node(shop: Path, classifier: Classifier, runtime: Path, pixels: list[Path]) -> None:
    command = [needs("node"), READERS / "classify.mjs", shop, *pixels]
    environment = os.environ | {"ORT": str(runtime / "ort.wasm.min.mjs")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    check(done.stdout.splitlines(), classifier, most=1e-3)


def test_c(shop: Path, classifier: Classifier, pixels: list[Path], tmp_path: Path) -> None:
    headers = Path(os.environ.get("ONNXRUNTIME_HEADERS", "/usr/include/onnxruntime"))
    if not (headers / "onnxruntime_c_api.h").is_file():
        pytest.skip("needs the headers of onnxruntime (libonnxruntime-dev)")
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{headers}", *os.environ.get("LDFLAGS", "").split()]
    compile_ = [needs("gcc"), *flags, "-o", tmp_path / "classify", READERS / "classify.c", "-lonnxruntime"]
    subprocess.run(compile_, check=True)
    done = subprocess.run([tmp_path / "classify", shop, *pixels], capture_output=True, text=True, check=True)
    check(done.stdout.splitlines(), classifier, most=1e-3)


def test_the_configuration_for_triton_is_one() -> None:
    """By the protobuf of Triton's own client; Triton itself reads inputs and outputs from the file."""
    spec = importlib.util.find_spec("tritonclient")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations))) / "grpc"
    loader = importlib.util.spec_from_file_location("model_config_pb2", folder / "model_config_pb2.py")
    assert loader is not None and loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    page = (ROOT / "docs" / "one_file.md").read_text("utf-8")
    (shown,) = re.findall(r"```protobuf\n(.*?)```", page, re.DOTALL)
    config = text_format.Parse(shown, module.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("shop", "onnxruntime", 0)
    assert len(shown.splitlines()) == 3


# ---------------------------------------------------------------------------------------------------------- teaching
@pytest.mark.parametrize("form", BANKS)
@pytest.mark.parametrize("count", [1, 2])
def test_taught_classes_rank_as_in_the_bank_that_is_written(form: str, count: int, tmp_path: Path) -> None:
    """Whatever the classes of the file are known by, photos of new ones rank them as Python does from that bank."""
    node = needs("node")
    classifier = Classifier.open(write_bundle(tmp_path / "bundle"))
    bank = BANKS[form](classifier)
    file, question, written = tmp_path / "one.onnx", tmp_path / "question.json", tmp_path / "taught.safetensors"
    write_one_file(classifier.bundle, bank, file)
    images = [to_input(Image.fromarray(soft(50, 30 + n)), PREPROCESS) for n in range(4)]
    rows = classifier.embed_inputs(images)
    classes = {f"new {n}": unit_rows_of(2 + n, 20 + n).tolist() for n in range(count)}
    decide = classifier.class_set(bank=bank)
    unknown = decide.linear.unknown.scores(rows)[:, np.newaxis]
    logits = np.concatenate([classifier.logits(rows, decide), unknown], 1)
    question.write_text(json.dumps({"classes": classes, "rows": rows.tolist(), "logits": logits.tolist()}))
    command = [node, "--input-type=module", "-e", TEACH, ROOT / "examples" / "browser", file, question, written]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if form == "photos":  # that no model was fitted to: all classes would change
        assert made is None
        return
    taught = ClassBank.load(written, classifier.bank.encoder_digest, classifier.bank)
    assert taught.names == (*bank.names, *classes)
    assert [len(taught.photos_of(name)) for name in classes] == [2 + n for n in range(count)]
    assert all(taught.entry(name).photos_only for name in classes)
    chosen = classifier.class_set(bank=taught)
    scores = classifier.scores(classifier.logits(rows, chosen))
    for one, expected, result in zip(made, scores, classifier.decide(chosen, 1)(rows), strict=True):
        np.testing.assert_allclose(one["scores"], expected, atol=1e-5)
        assert one["unknown"] == pytest.approx(result.unknown, abs=1e-5)


# --------------------------------------------------------------------------------------------------------- the page
@pytest.fixture(scope="module")
def url(shop: Path, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served as ``python -m http.server`` does."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(runtime, folder / "ort")
    prepare(shop, folder)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 25e6

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ranked(page: Any) -> None:
    """Wait until the ranking answers; the first opens the model."""
    page.locator("#ranking[aria-busy=false] #bars li").first.wait_for(timeout=120_000)


@pytest.mark.slow
def test_the_page_answers_as_the_package(open_page: Any, url: str, classifier: Classifier) -> None:
    from playwright.sync_api import expect

    photos = sorted((CLOTHES / "test").glob("*/*.jpg"))[::3]
    page, _ = open_page(url, "/")
    page.set_input_files("#files", photos)
    expect(page.locator("#strip span")).to_have_count(len(photos))
    expect(page.locator("#strip span", has_text="…")).to_have_count(0, timeout=300_000)
    shown = page.locator("#strip span").all_inner_texts()
    results = classifier.classify(photos, top_k=1, unknown=True)
    expected = [result.predictions[0].label if result.predictions else "unknown" for result in results]
    assert sum(map(str.__eq__, shown, expected)) >= 0.99 * len(photos)


def test_a_class_is_taught_on_the_page_and_taken_along(
    open_page: Any, url: str, classifier: Classifier, tmp_path: Path
) -> None:
    page, watch = open_page(url, "/")
    page.set_default_timeout(60_000)
    photo, examples = CLOTHES / "test" / "shoes" / "00.jpg", sorted((CLOTHES / "added" / "shoes").glob("*.jpg"))
    page.set_input_files("#files", photo)
    ranked(page)
    assert labels(page)[0] != "shoes"
    assert page.locator("#download").is_hidden()
    page.fill("#name", "shoes")
    page.press("#name", "Enter")
    page.locator("#chips .count", has_text="needs photos").wait_for()
    drop(page, page.locator("#chips li"), examples)
    page.locator("#download").wait_for()
    page.locator("#bars .own").wait_for()
    ranked(page)
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "taught.safetensors")
    listing = subprocess.run(
        [sys.executable, "-m", "sar_infer.cli.bank", "list", tmp_path / "taught.safetensors"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listing.stdout.split("\n")[-2] == "shoes"
    taught = ClassBank.load(tmp_path / "taught.safetensors", classifier.bank.encoder_digest, classifier.bundle.bank)
    result = classifier.classify(photo, classifier.class_set(bank=taught))
    assert labels(page) == [prediction.label for prediction in result.predictions]
    shares = page.locator("#bars .share").all_inner_texts()
    assert shares[0] == f"{result.predictions[0].score:.1%}"
    page.get_by_role("button", name="Undo").click()
    page.locator("#download").wait_for(state="hidden")
    assert watch.foreign == []
    page.context.set_offline(True)
    page.set_input_files("#files", examples[0])
    ranked(page)


def test_the_page_takes_a_photo_with_the_camera(browser: Any, url: str) -> None:
    context = browser.new_context(permissions=["camera"])
    page = context.new_page()
    page.add_init_script(
        """navigator.mediaDevices.getUserMedia = async () => {
            const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 48 });
            canvas.getContext('2d').fillRect(0, 0, 64, 48);
            return canvas.captureStream(30);
        };"""
    )
    page.goto(url + "/")
    page.click("#shoot")
    page.locator("video:visible").wait_for()
    page.get_by_role("button", name="Take it").click()
    page.locator("#preview:visible").wait_for()
    assert page.locator("#preview").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 48]
    context.close()
