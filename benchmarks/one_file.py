"""One ONNX file against the package: agreement of Python, Node and Chromium on all sets of photos, and their time.

    python -m benchmarks.one_file [--most 200] [--out FILE]

Each set gets a file: of a bank from some of its photos, or for single photos of many classes, of the bundle's names.
Other photos are classified by the file and by the package. Node reads the pixels that Pillow decodes, Chromium decodes
the files itself. Both run onnxruntime-web in WebAssembly on one thread.
"""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks import command
from examples.browser.prepare import prepare
from sar_infer import Classifier
from sar_infer._arrays import Floats
from sar_train.export.one_file import write_one_file

READERS = command.ROOT / "examples" / "readers"
TAUGHT = 4
"""Photos of each class that a bank is made of, at most."""
LOOK = """async (encoded) => {
    const api = await import('./static/api.js');
    const { look, probabilities } = await import('./static/model.js');
    const blob = await (await fetch('data:image/jpeg;base64,' + encoded)).blob();
    const start = performance.now();
    const model = await api.opened;
    const image = await api.pixels(blob, model.fill);
    const decoded = performance.now();
    const { embedding, logits } = await look(model, image);
    const ms = [decoded - start, performance.now() - decoded];
    return { embedding: [...embedding], scores: probabilities([...logits]).scores, ms };
}"""


def sets(data: Path, most: int) -> Iterator[tuple[str, dict[str, list[Path]] | None, list[Path]]]:
    """Yield name, photos by class to make a bank of (None: names only), and photos to classify."""
    folders = {
        "clothes": [data / "clothes" / "train"],
        "Caltech101": [data / "caltech-101" / "101_ObjectCategories"],
        "DTD": [data / "dtd" / "images"],
        "PACS": [data / "pacs" / domain for domain in ("photo", "cartoon", "sketch")],
    }
    for name, domains in folders.items():
        classes = {one.name: sorted(one.glob("*.jpg")) for one in sorted(domains[0].iterdir()) if one.is_dir()}
        bank = {label: photos[: min(TAUGHT, len(photos) // 2)] for label, photos in classes.items()}
        if name == "clothes":
            others = sorted((data / "clothes" / "test").glob("*/*.jpg"))
        else:
            taught = {photo for photos in bank.values() for photo in photos}
            others = [one for domain in domains for one in sorted(domain.glob("*/*.jpg")) if one not in taught]
        yield name, bank, others[:: -(-len(others) // most)]
    photos = sorted((data / "imagenet_sample").glob("*.jpg"))
    yield "ImageNet sample", None, photos[:: -(-len(photos) // most)]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, as ``python -m http.server`` does."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def lines(arguments: Sequence[object], **environment: str) -> list[dict[str, Any]]:
    """Run a reader, and return its lines of JSON."""
    done = subprocess.run(
        [*map(str, arguments)], check=True, stdout=subprocess.PIPE, cwd=command.ROOT, env=os.environ | environment
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def in_node(model: Path, photos: Sequence[Path], folder: Path, runtime: Path) -> list[dict[str, Any]]:
    """Classify in Node the pixels that Pillow decodes."""
    pixels = [folder / f"{number}.ppm" for number in range(len(photos))]
    for photo, target in zip(photos, pixels, strict=True):
        ImageOps.exif_transpose(Image.open(photo)).convert("RGB").save(target)
    return lines(["node", READERS / "classify.mjs", model, *pixels], ORT=str(runtime / "ort.wasm.min.mjs"))


def in_chromium(page: Path, photos: Sequence[Path]) -> list[dict[str, Any]]:
    """Classify in Chromium the files themselves."""
    from playwright.sync_api import sync_playwright

    with served(page) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        context = browser.new_context(bypass_csp=True)  # photos come as data URLs here
        tab = context.new_page()
        tab.goto(url)
        tab.set_default_timeout(120_000)
        answers = [tab.evaluate(LOOK, base64.b64encode(photo.read_bytes()).decode()) for photo in photos]
        browser.close()
    return answers


def row(name: str, reader: str, answers: list[dict[str, Any]], rows: Floats, scores: Floats) -> dict[str, Any]:
    """Return the figures of a reader on a set."""
    theirs = np.array([one["scores"] for one in answers])
    embeddings = np.array([one["embedding"] for one in answers])
    return {
        "set": name,
        "reader": reader,
        "photos": len(answers),
        "classes": scores.shape[1],
        "least_cosine": float((embeddings * rows).sum(1).min()),
        "largest_difference": float(np.abs(theirs - scores).max()),
        "same_first": float((theirs.argmax(1) == scores.argmax(1)).mean()),
        "ms": [one["ms"] for one in answers] if "ms" in answers[0] else None,
    }


def main() -> None:
    """Measure and print."""
    options = command.options(__doc__, data=command.SHARED_DATA, most=200, out=(Path, "also write here"))
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, taught, photos in sets(options.data, options.most):
            command.say(f"{name}: {len(photos)} photos")
            classifier = Classifier.open(command.MINI, device="cpu")
            bank = classifier.bank if taught is None else classifier.create(taught)
            classes = classifier.class_set(bank=bank)
            rows = classifier.embed_images(photos)
            scores = classifier.scores(classifier.logits(rows, classes))
            model = folder / "model.onnx"
            write_one_file(classifier.bundle, bank, model)
            prepare(model, folder / "page")
            answers = {
                "Python": lines([sys.executable, READERS / "classify.py", model, *photos]),
                "Node": in_node(model, photos, folder, folder / "page" / "ort"),
                "Chromium": in_chromium(folder / "page", photos),
            }
            for reader, one in answers.items():
                results.append(row(name, reader, one, rows, scores) | {"bytes": model.stat().st_size})
                command.say(f"{reader}: {results[-1]['least_cosine']:.7f}, {results[-1]['same_first']:.1%}")
    heads = ("set", "classes", "photos", "reader", "least cosine", "largest difference of a score", "same first class")
    shown = [
        (
            *(r[key] for key in ("set", "classes", "photos", "reader")),
            f"{r['least_cosine']:.7f}",
            f"{r['largest_difference']:.0e}",
            f"{r['same_first']:.1%}",
        )
        for r in results
    ]
    times = np.array([ms for r in results for ms in r.pop("ms") or []])
    words = "; ".join(
        f"{what} {np.min(ms):.0f}, median {np.median(ms):.0f}"
        for what, ms in zip(("decode", "run"), times.T, strict=True)
    )
    size = max(r["bytes"] for r in results) / 1e6
    text = f"{command.markdown(heads, shown)}\n\nLargest file {size:.1f} MB. Chromium, least ms a photo: {words}."
    command.tell(text, results, options.out)


if __name__ == "__main__":
    main()
