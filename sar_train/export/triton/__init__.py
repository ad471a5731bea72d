"""A bundle as a Triton model repository: image encoder, bank product, and both as one ensemble.

No torch is needed. The repository answers for the classes of the bundle's bank, as the run time does by default; a new
bank needs a new repository.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Place, open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, Manifest
from sar_infer.bundle.writing import staged
from sar_infer.bundle_check.comparison import MAX_DIFFERENCE, largest_difference
from sar_infer.bundle_check.finding import at_most
from sar_infer.classifier import Classifier
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.self_test import self_test_pixels
from sar_infer.encoders.sessions import open_session
from sar_infer.errors import InputError
from sar_infer.storage.files import sync_folder, write_file
from sar_train.errors import ConfigError
from sar_train.export.refuse import refuse
from sar_train.export.triton import config
from sar_train.export.triton.product import bank_product
from sar_train.export.triton.readme import readme


def write_repository(bundle_path: Place, out: Path, precision: str = "fp32") -> tuple[str, ...]:
    """Write the repository and compare its answers with the run time's before the folder gets its name.

    Args:
        bundle_path: The bundle.
        out: The new folder.
        precision: The image encoder's.

    Returns:
        The class of each column of ``scores``.

    Raises:
        BundleError: the bundle is damaged or of another version.
        InputError: ``out`` exists.
        ConfigError: the bundle has no image encoder of this precision.
        ExportError: the bank does not fit, or scores differ.
        WriteError: the folder cannot be written; nothing is left behind.
    """
    if os.path.lexists(out):
        raise InputError(f"{out}: exists; a repository is written to a new folder")
    bundle = open_bundle(bundle_path)
    encoder = bundle.path / encoder_file(bundle.manifest, precision)
    classifier = Classifier(bundle, device="cpu", cache=EmbeddingCache())
    product = bank_product(bundle.manifest, classifier.class_set())
    with staged(out, overwrite=False) as folder:
        for name, text in _configs(bundle.manifest, len(product.labels), precision).items():
            (folder / name / "1").mkdir(parents=True)
            write_file(folder / name / "config.pbtxt", text.encode())
        shutil.copyfile(encoder, folder / config.ENCODER / "1" / "model.onnx")
        write_file(folder / config.PRODUCT / "1" / "model.onnx", product.model.SerializeToString(deterministic=True))
        write_file(folder / config.CLASSIFIER / "1" / ".keep", b"")  # object stores keep no empty folder
        labels = "".join(" ".join(label.split()) + "\n" for label in product.labels).encode()
        for name in (config.PRODUCT, config.CLASSIFIER):
            write_file(folder / name / config.LABELS, labels)
        write_file(folder / "README.md", readme(bundle.manifest, product.labels, precision).encode())
        check_answers(folder, classifier)
        for inner in folder.rglob("*/"):
            sync_folder(inner)
    return product.labels


def encoder_file(manifest: Manifest, precision: str) -> str:
    """Return the file of the image encoder in a precision.

    Raises:
        ConfigError: the bundle has none.
    """
    if precision == "fp32":
        return IMAGE_ENCODER
    ready = [name for name, graphs in manifest.precisions.items() if graphs.image is not None]
    variant = manifest.precisions[precision].image if precision in ready else None
    if variant is None:
        raise ConfigError(f"--precision {precision}: this bundle has {', '.join(['fp32', *ready])}")
    return variant.file


def _configs(manifest: Manifest, classes: int, precision: str) -> dict[str, str]:
    pixels, dim = [3, manifest.preprocess.size, manifest.preprocess.size], manifest.embed_dim
    kind = "KIND_CPU" if precision == "int8" else "KIND_AUTO"  # its kernels are the CPU's
    scores = {config.LOGITS: [classes], config.SCORES: [classes]}
    return {
        config.ENCODER: config.model(config.ENCODER, {config.PIXELS: pixels}, {config.EMBEDDING: [dim]}, kind),
        config.PRODUCT: config.model(config.PRODUCT, {config.EMBEDDING: [dim]}, scores),
        config.CLASSIFIER: config.ensemble(pixels, dim, classes),
    }


IMAGES = 8


def check_answers(folder: Path, classifier: Classifier) -> None:
    """Check that the repository's scores are those of the run time for the same embeddings.

    Args:
        folder: The repository.
        classifier: With the bundle's bank; its image encoder may be another precision of the repository's.

    Raises:
        ExportError: a score differs by more than ``MAX_DIFFERENCE``.
    """
    spec, classes = classifier.bundle.manifest.preprocess, classifier.class_set()
    pixels = np.stack([self_test_pixels(spec, seed) for seed in range(IMAGES)])
    (rows,) = _run(folder / config.ENCODER, [config.EMBEDDING], {config.PIXELS: pixels})
    (scores,) = _run(folder / config.PRODUCT, [config.SCORES], {config.EMBEDDING: rows})
    expected = classifier.scores(classifier.logits(rows, classes), classes)
    shown = slice(None) if classes.background is None else ~classes.background
    difference = largest_difference(scores, expected[:, shown])
    refuse(at_most("bank product, difference of scores to the run time", difference, MAX_DIFFERENCE))


def _run(model: Path, outputs: list[str], feeds: dict[str, Floats]) -> list[Floats]:
    results: list[Floats] = open_session(model / "1" / "model.onnx", "cpu").run(outputs, feeds)
    return results
