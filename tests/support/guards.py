"""Embeddings and answers of exports, and the fixtures in ``tests/parity/guards`` that later code is compared with.

``PYTHONPATH=.:tests python -m support.guards`` writes the fixtures anew; a change of them needs a reason.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from PIL import Image
from support.exported import export_run, moved
from support.photos import SHARED, write_photo
from support.tiny import RESNET, VIT

from sar_infer import Classifier
from sar_infer.bundle.bundle import default_bundle
from sar_train.export import shrink
from sar_train.methods.base import methods

FOLDER = Path(__file__).parents[1] / "parity" / "guards"
ROOT = FOLDER.parents[2]
CASES = {name: (name, VIT) for name in sorted(methods.entries)} | {"coop-resnet": ("coop", RESNET)}
"""Method and backbone of each export; the ResNet has an INT8 graph of convolutions."""
NO_INT8 = ("tcp",)
"""onnxruntime 1.31 cannot quantise the name encoder: it infers no type for a product of a prompt made from a name."""
BANK = ("sea lake", "grey stone", "cat", "red car")
NAMES = (*BANK, "tripod", "Œuvre d'été", "a rather long name of a thing, with commas in it", "x")
GENERATED = 4
REAL = {
    "examples": ("dress/03", "hat/07", "shoes/01", "T-shirt/12"),
    "shared": ("n01440764_tench", "n02123045_tabby", "n07753592_banana", "n04285008_sports_car"),
}
GRAPHS = ("image_encoder.onnx", "name_encoder.onnx", "tokenizer.bpe.gz")
Arrays = dict[str, npt.NDArray[Any]]


def photos(folder: Path) -> list[Path]:
    """Return all photos of a comparison: generated ones, some of ``examples/clothes`` and some of ``../shared/data``.

    The last ones may be missing; `present` says which are there.
    """
    generated = [write_photo(folder / f"{seed}.png", seed, (60, 44)) for seed in range(GENERATED)]
    examples = [ROOT / "examples" / "clothes" / "test" / f"{name}.jpg" for name in REAL["examples"]]
    return [*generated, *examples, *(SHARED / "imagenet_sample" / f"{name}.jpg" for name in REAL["shared"])]


def present(paths: list[Path]) -> list[int]:
    """Return the positions of the photos that are on this machine."""
    return [number for number, path in enumerate(paths) if path.is_file()]


def int8(bundle: Path, out: Path, folder: Path) -> Path:
    """Write the bundle with an INT8 graph beside its own, calibrated on generated photos, whatever their parity."""
    samples = [write_photo(folder / f"{seed}.png", seed) for seed in range(100, 148)]
    with mock.patch.multiple(shrink, LEAST_COSINE=-1, LEAST_AGREEMENT=0):
        shrink.shrink(bundle, out, samples, ["int8"], command="tests")
    return out


def measured(classifier: Classifier, paths: list[Path]) -> Arrays:
    """Return embeddings of photos (N, D) and of names (C, D), and scores (N, C) of the names."""
    results = classifier.classify(paths, NAMES, only=True, top_k=len(NAMES))
    by_name = [{answer.label: answer.score for answer in result.predictions} for result in results]
    return {
        "photos": classifier.embed_images(paths, 1),
        "names": classifier.embed_names(NAMES),
        "scores": np.array([[scores[name] for name in NAMES] for scores in by_name], np.float32),
    }


def of_method(case: str, paths: list[Path], folder: Path) -> Arrays:
    """Export a method and return what it computes in float32 and, with the prefix ``int8/``, in INT8."""
    method, backbone = CASES[case]
    bundle = export_run(moved(method, backbone), BANK, folder / "bundle")
    arrays = measured(Classifier.open(bundle, device="cpu"), paths)
    if case in NO_INT8:
        return arrays
    small = int8(bundle, folder / "int8", folder / "samples")
    smaller = measured(Classifier.open(small, device="cpu", precision="int8"), paths)
    return arrays | {f"int8/{key}": value for key, value in smaller.items()}


def of_mini(paths: list[Path]) -> Arrays:
    """Return what the shipped bundle computes, its five best classes of each photo, and the digests of its graphs."""
    bundle = default_bundle()
    classifier = Classifier.open(bundle, device="cpu")
    best = [result.predictions for result in classifier.classify(paths, top_k=5)]
    return measured(classifier, paths) | {
        "best": np.array([[answer.label for answer in answers] for answers in best]),
        "best_scores": np.array([[answer.score for answer in answers] for answers in best], np.float32),
        "graphs": np.array([hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in GRAPHS]),
    }


def read(case: str) -> Arrays:
    """Return the arrays of a fixture."""
    content = json.loads((FOLDER / f"{case}.json").read_text("utf-8"))
    return {key: np.array(values) for key, values in content.items()}


def write(case: str, arrays: Arrays) -> None:
    """Write a fixture."""
    lists = {key: (values.round(7) if values.dtype.kind == "f" else values).tolist() for key, values in arrays.items()}
    text = json.dumps(lists, separators=(",", ":"), ensure_ascii=False)
    (FOLDER / f"{case}.json").write_text(f"{text}\n", "utf-8")


def main() -> None:
    """Write all fixtures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = photos(folder / "photos")
        for path in paths:
            Image.open(path).verify()
        for case in CASES:
            write(case, of_method(case, paths, folder / case))
        write("mini", of_mini(paths))


if __name__ == "__main__":
    main()
