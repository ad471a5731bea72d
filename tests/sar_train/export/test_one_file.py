"""``sar-bundle onnx``: one file whose pixels, scores and answers are those of the package."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.browser import CAT, COFFEE, ROCKET
from support.bundles import PREPROCESS, SIZE, at_one, image_graph, reseal, write_bundle
from support.folders import listing
from support.one_file import BANKS, Image8, soft
from support.precisions import add_precision
from support.trained import example_trained, unit_rows_of

from sar_infer import Classifier
from sar_infer.bank import ClassBank, set_class
from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_infer.images.preprocess import to_input
from sar_infer.results import DecisionOptions
from sar_train.cli.one_file import main
from sar_train.export import one_file


def write(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run(path: Path, image: Image8) -> dict[str, npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def stored(path: Path) -> Mapping[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def photo(path: Path) -> Image8:
    return np.asarray(Image.open(path).convert("RGB"))


IMAGES: dict[str, Callable[[], Image8]] = {
    "one column": lambda: soft(1, 900),
    "one row": lambda: soft(900, 1),
    "about the size": lambda: soft(257, 255),
    "wide": lambda: soft(4000, 30),
    "grey": lambda: soft(301, 97, grey=True),
    "enlarged": lambda: soft(13, 17),
    "the size itself": lambda: soft(SIZE, SIZE),
    "half a pixel to crop": lambda: soft(SIZE, SIZE + 1),
    "a pixel and a half to crop": lambda: soft(SIZE, SIZE + 3),
    "coffee": lambda: photo(COFFEE),
    "cat": lambda: photo(CAT),
    "rocket": lambda: photo(ROCKET),
}


# ------------------------------------------------------------------------------------------------------------ pixels
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("resize_mode", "crop"), [("shortest", "round"), ("shortest", "floor"), ("longest", "round"), ("squash", "round")]
)
def test_pixels_are_those_of_the_package(resize_mode: Any, crop: Any, interpolation: Any, tmp_path: Path) -> None:
    spec = dataclasses.replace(PREPROCESS, resize_mode=resize_mode, crop=crop, interpolation=interpolation, fill=77)
    bundle = write_bundle(tmp_path / "bundle", preprocess=spec)
    assert write(bundle, "--out", tmp_path / "one.onnx").exit_code == 0
    model = onnx.load(tmp_path / "one.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "pixels.onnx")
    steps = 255 * np.array(spec.std, np.float32)[:, np.newaxis, np.newaxis]
    for name, image in IMAGES.items():
        pixels = run(tmp_path / "pixels.onnx", image())["pixels"][0]
        levels = np.abs(pixels - to_input(Image.fromarray(image()), spec)) * steps
        assert levels.max() < (2.01 if name == "wide" else 1.01), name  # onnxruntime rounds scales to float32
        assert (levels > 0.01).mean() < 0.03, name


def test_a_thin_image_needs_no_gigabytes(bundle: Path, tmp_path: Path) -> None:
    assert write(bundle, "--out", tmp_path / "one.onnx").exit_code == 0
    thin = """
import numpy as np, onnxruntime, resource, sys
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for shape in ((1, 200_001, 3), (200_001, 1, 3), (2, 200_000, 3)):
    session.run(["scores"], {"image": np.zeros(shape, np.uint8)})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    process = subprocess.run([sys.executable, "-c", thin, tmp_path / "one.onnx"], capture_output=True, check=True)
    assert int(process.stdout) < 500  # MiB; 1:10,000 took 2,500


# ----------------------------------------------------------------------------------------------------------- answers
@pytest.mark.parametrize("bank", BANKS)
def test_scores_and_answers_are_those_of_the_package(bank: str, tmp_path: Path) -> None:
    classifier = Classifier.open(write_bundle(tmp_path / "bundle"))
    classes = BANKS[bank](classifier)
    classes.save(tmp_path / "bank.safetensors")
    made = write(tmp_path / "bundle", "--bank", tmp_path / "bank.safetensors", "--out", tmp_path / "one.onnx")
    assert made.exit_code == 0, made.output
    names = json.loads(stored(tmp_path / "one.onnx")["class_names"])
    assert names == [*classes.names]
    chosen = classifier.class_set(bank=classes)
    tells = bank not in ("names", "own names", "a name more", "photos")
    decide = classifier.decide(chosen, len(names), DecisionOptions(unknown=tells))
    answers = []
    for image in (
        *(one() for one in IMAGES.values()),
        *(np.full((9, 9, 3), level, np.uint8) for level in (0, 90, 255)),
    ):
        outputs = run(tmp_path / "one.onnx", image)
        row = classifier.embed_inputs([to_input(Image.fromarray(image), PREPROCESS)])
        (result,) = decide(row)
        (scores,) = classifier.scores(classifier.logits(row, chosen))
        np.testing.assert_allclose(outputs["scores"][0], scores, atol=1e-3)
        np.testing.assert_allclose(outputs["embedding"], row, atol=1e-3)
        assert outputs["unknown"] == pytest.approx([result.unknown], abs=1e-3)
        answers.append(int(outputs["answer"][0]))
        assert answers[-1] == (names.index(result.predictions[0].label) if result.predictions else -1)
    if bank == "settings":
        assert -1 in answers
    if bank == "threshold":
        assert {*answers} == {-1}
    assert {outputs["scores"].shape, outputs["answer"].shape} == {(1, len(names)), (1,)}


def test_a_batch_has_the_answers_of_its_images(bundle: Path, tmp_path: Path) -> None:
    for name, options in (("one.onnx", ()), ("many.onnx", ("--batch",))):
        assert write(bundle, "--out", tmp_path / name, *options).exit_code == 0
    first = {
        file: {output.type.tensor_type.shape.dim[0].dim_value for output in onnx.load(tmp_path / file).graph.output}
        for file in ("one.onnx", "many.onnx")
    }
    assert first == {"one.onnx": {1}, "many.onnx": {0}}  # by which Triton tells that it may batch
    images = np.stack([soft(60, 40), 255 - soft(60, 40), np.zeros((40, 60, 3), np.uint8)])
    many, singles = run(tmp_path / "many.onnx", images), [run(tmp_path / "one.onnx", image) for image in images]
    for name, values in many.items():
        np.testing.assert_allclose(values, np.concatenate([one[name] for one in singles]), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("batch", [False, True])
def test_several_classes_of_an_image_are_those_of_the_package(batch: bool, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", trained=example_trained())
    classifier = Classifier.open(bundle)
    bank = set_class(classifier.bank, "green", background=True)
    for name in ("red", "blue"):
        bank = set_class(bank, name, threshold=0.1)
    bank.save(tmp_path / "bank.safetensors")
    options = ("--bank", tmp_path / "bank.safetensors", "--several", *["--batch"] * batch)
    assert write(bundle, "--out", tmp_path / "one.onnx", *options).exit_code == 0
    metadata, numbers = stored(tmp_path / "one.onnx"), []
    names, crops = json.loads(metadata["class_names"]), json.loads(metadata["crops"])
    for image in (soft(61, 40), soft(39, 90), 255 - soft(60, 41), np.zeros((40, 60, 3), np.uint8)):
        outputs = run(tmp_path / "one.onnx", np.stack([image[::-1], image]) if batch else image)
        result = classifier.classify(image, classifier.class_set(bank=bank), top_k=9, several=True)
        scores, labels, boxes, unknown = (outputs[name][-1] for name in ("scores", "labels", "crops", "unknown"))
        assert {p.label: scores[names.index(p.label)] for p in result.predictions} == pytest.approx(
            {p.label: p.score for p in result.predictions}, abs=1e-3
        )
        shown = [(names[c], tuple(crops[boxes[c]])) for c in np.flatnonzero(labels)]
        assert {*shown} == {(one.label, one.box) for one in result.labels}
        assert unknown == pytest.approx(result.unknown, abs=1e-3)
        numbers.append(len(shown))
    assert max(numbers) > 1


def test_several_needs_a_class_model(bundle: Path, tmp_path: Path) -> None:
    refused = write(bundle, "--out", tmp_path / "one.onnx", "--several")
    assert (refused.exit_code, listing(tmp_path)) == (2, [])
    assert refused.stderr.startswith("Error: several: needs a fitted class model")


def test_an_encoder_whose_batch_is_fixed_at_one_makes_a_file_for_one_image(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", trained=example_trained())
    onnx.save(at_one(image_graph()), bundle / IMAGE_ENCODER)
    reseal(bundle)
    assert write(bundle, "--out", tmp_path / "one.onnx").exit_code == 0
    for option in ("--batch", "--several"):
        refused = write(bundle, "--out", tmp_path / "many.onnx", option)
        assert (refused.exit_code, refused.stderr.endswith(f"leave {option} out\n")) == (1, True)


def test_a_smaller_encoder_is_one_of_the_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    refused = write(bundle, "--out", tmp_path / "one.onnx", "--precision", "int8")
    assert (refused.exit_code, listing(tmp_path)) == (2, ["bundle"])
    assert refused.stderr.startswith("Error: precision int8: this bundle has fp32; sar-bundle shrink ")
    add_precision(bundle, "int8")
    assert write(bundle, "--out", tmp_path / "one.onnx", "--precision", "int8").exit_code == 0
    row = Classifier.open(bundle, precision="int8").embed_images(soft(60, 40))
    np.testing.assert_allclose(run(tmp_path / "one.onnx", soft(60, 40))["embedding"], row, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------- metadata
def test_metadata_says_what_a_reader_needs(tmp_path: Path) -> None:
    classifier = Classifier.open(write_bundle(tmp_path / "bundle"))
    bank = BANKS["settings"](classifier)
    bank.save(tmp_path / "bank.safetensors")
    write(tmp_path / "bundle", "--bank", tmp_path / "bank.safetensors", "--out", tmp_path / "one.onnx")
    metadata = stored(tmp_path / "one.onnx")
    assert json.loads(metadata["background"]) == ["green", "blue"]
    assert json.loads(metadata["thresholds"]) == {"warm": 1.0}
    assert json.loads(metadata["licence"]) == {}
    assert metadata["encoder_digest"] == classifier.bundle.manifest.encoder_digest
    (tmp_path / "again.safetensors").write_bytes(base64.b64decode(metadata["bank"]))
    again = ClassBank.load(tmp_path / "again.safetensors", base=classifier.bundle.bank)
    assert (again.names, again.history) == (bank.names, ())
    assert not any(len(one.rows) for one in again.photos.values())
    row = unit_rows_of(1, 1)
    logits = [classifier.logits(row, classifier.class_set(bank=one)) for one in (bank, again)]
    np.testing.assert_allclose(*logits, atol=1e-6)
    assert str(tmp_path) not in json.dumps({**metadata, "bank": base64.b64decode(metadata["bank"]).decode("latin1")})


# ---------------------------------------------------------------------------------------------------------- refusals
@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.mark.parametrize("bound", [{"LEAST_COSINE": {"fp32": 1.1}}, {"MOST_DIFFERENCE": {"fp32": -1.0}}])
def test_nothing_is_written_beyond_a_bound(
    bound: dict[str, Any], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bound.items():
        monkeypatch.setattr(one_file, name, value)
    result = write(bundle, "--out", tmp_path / "one.onnx")
    assert (result.exit_code, listing(tmp_path)) == (1, [])
    assert "expected at" in result.stderr
    assert result.stderr.endswith("; nothing was written\n")


def test_a_wrong_decision_is_not_written(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_file, "_HEAD", one_file._HEAD.replace("(none, minus_one, best)", "(none, best, minus_one)"))
    result = write(bundle, "--out", tmp_path / "one.onnx")
    assert (result.exit_code, listing(tmp_path)) == (1, [])
    assert result.stderr.endswith("other answers: 6, expected at most 0; nothing was written\n")


def test_a_file_is_replaced_only_on_request(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.onnx"
    file.write_text("mine")
    refused = write(bundle, "--out", file)
    assert (refused.exit_code, file.read_text()) == (2, "mine")
    assert refused.stderr == f"Error: {file}: exists; choose another --out, or replace a file with --overwrite\n"
    assert write(bundle, "--out", file, "--overwrite").exit_code == 0
    assert write(bundle, "--out", tmp_path, "--overwrite").exit_code == 2
    missing = write(bundle, "--out", tmp_path / "none" / "one.onnx")
    assert (missing.exit_code, missing.stderr) == (2, f"Error: {tmp_path}/none: no such folder; make it first\n")


def test_a_bank_without_answers_is_refused(tmp_path: Path) -> None:
    classifier = Classifier.open(write_bundle(tmp_path / "bundle", names=("red",)))
    set_class(classifier.bank, "red", background=True).save(tmp_path / "bank.safetensors")
    result = write(tmp_path / "bundle", "--bank", tmp_path / "bank.safetensors", "--out", tmp_path / "one.onnx")
    assert (result.exit_code, "only background classes" in result.stderr) == (2, True)
    assert not (tmp_path / "one.onnx").exists()


def test_it_needs_onnx_and_no_torch(bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in {blocked}: sys.modules[name] = None\n"
        "from sar_train.cli.one_file import main\n"
        f"main([{str(bundle)!r}, '--out', {str(tmp_path / 'one.onnx')!r}])"
    )
    torch = ("torch", "torchvision", "open_clip", "timm", "onnxscript", "onnx_ir")
    done = [
        subprocess.run([sys.executable, "-c", code.format(blocked=names)], capture_output=True, text=True)
        for names in (("onnx",), torch)
    ]
    assert (done[0].returncode, done[0].stderr) == (
        2,
        "Error: this command needs onnx: pip install '.[onnx]' in a clone of sar-clip\n",
    )
    assert (done[1].returncode, done[1].stderr) == (0, "")
