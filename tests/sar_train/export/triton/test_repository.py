"""Repositories are read with Triton's protobuf and run step by step, beside what the run time answers."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from support.bundles import BANK_NAMES, SIZE, example_head, name_rows, reseal, write_bundle
from support.folders import listing
from support.photos import write_photo
from support.precisions import add_precision
from support.triton import KINDS, read_config, run_ensemble, session

from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import BANK
from sar_infer.classifier import Classifier
from sar_infer.classify.ranking import Scale
from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input
from sar_train.cli.triton import main
from sar_train.errors import ConfigError
from sar_train.export.triton import product, write_repository
from sar_train.export.triton.readme import snippet

MODELS = ("image_encoder", "bank_product", "classifier")


def with_background(path: Path) -> Path:
    bundle = write_bundle(path)
    bank = ClassBank.load(bundle / BANK)
    info = {BANK_NAMES[1]: ClassInfo(background=True)}
    ClassBank.of(bank.names, bank.embeddings, bank.encoder_digest, info=info).save(bundle / BANK)
    reseal(bundle)
    return bundle


BUNDLES: dict[str, Callable[[Path], Path]] = {
    "plain": write_bundle,
    "head": lambda path: write_bundle(path, head=example_head()),
    "head for some": lambda path: write_bundle(path, head=example_head(BANK_NAMES[:2])),
    "bias and temperature": lambda path: write_bundle(path, logit_bias=-3.5, temperature=1.7, calibrated=BANK_NAMES),
    "background": with_background,
}


@dataclass(frozen=True)
class Written:
    """A bundle, the repository that was written from it, and the labels."""

    bundle: Path
    repository: Path
    labels: tuple[str, ...]


@pytest.fixture(scope="module", params=BUNDLES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("triton")
    bundle = BUNDLES[request.param](folder / "bundle")
    return Written(bundle, folder / "repository", write_repository(bundle, folder / "repository"))


def pixels_of(bundle: Path, photos: list[Path]) -> np.ndarray[Any, np.dtype[np.float32]]:
    spec = open_bundle(bundle).manifest.preprocess
    return np.stack([to_input(load_rgb(photo, spec.fill), spec) for photo in photos])


def test_the_ensemble_answers_as_the_run_time(written: Written, tmp_path: Path) -> None:
    """For any number of images in a request."""
    photos, labels = [write_photo(tmp_path / f"{seed}.png", seed) for seed in range(5)], written.labels
    pixels = pixels_of(written.bundle, photos)
    outputs = run_ensemble(written.repository, "classifier", {"pixels": pixels})
    classifier = Classifier.open(written.bundle, device="cpu")
    for row, result in enumerate(classifier.classify(photos, top_k=99)):
        scores = {prediction.label: prediction.score for prediction in result.predictions}
        logits = {prediction.label: prediction.logit for prediction in result.predictions}
        assert set(scores) == set(labels)
        np.testing.assert_allclose(outputs["scores"][row], [scores[label] for label in labels], atol=1e-5)
        np.testing.assert_allclose(outputs["logits"][row], [logits[label] for label in labels], atol=1e-4)
    np.testing.assert_allclose(outputs["embedding"], classifier.embed_images(photos), atol=1e-6)
    one = run_ensemble(written.repository, "classifier", {"pixels": pixels[:1]})
    np.testing.assert_allclose(outputs["scores"][:1], one["scores"], atol=1e-6)


def test_configurations_say_what_the_graphs_are(written: Written) -> None:
    for model in ("image_encoder", "bank_product"):
        config, inner = read_config(written.repository, model), session(written.repository, model)
        assert (config.name, config.platform) == (model, "onnxruntime_onnx")
        assert config.HasField("dynamic_batching")
        types = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
        for ports, real in ((config.input, inner.get_inputs()), (config.output, inner.get_outputs())):
            assert {port.name: [*port.dims] for port in ports} == {port.name: port.shape[1:] for port in real}
            assert {port.name: types[port.data_type].name for port in ports} == {p.name: KINDS[p.type] for p in real}
            assert all(isinstance(port.shape[0], str) for port in real)  # free, so that requests can be batched
    bank = onnx.load(written.repository / "bank_product" / "1" / "model.onnx")
    assert (bank.ir_version, bank.opset_import[0].version) == (8, 13)  # which every recent Triton reads


def test_the_ensemble_is_wired_through(written: Written) -> None:
    configs = {model: read_config(written.repository, model) for model in MODELS}
    ensemble = configs["classifier"]
    assert ensemble.platform == "ensemble"
    ports = {port.name: (port.data_type, [*port.dims]) for port in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        inner = configs[step.model_name]
        assert inner.max_batch_size == ensemble.max_batch_size
        assert {port.name for port in inner.input} == set(step.input_map)
        for port in inner.input:
            assert ports[step.input_map[port.name]] == (port.data_type, [*port.dims])
        for port in inner.output:
            ports[step.output_map[port.name]] = (port.data_type, [*port.dims])
    for port in ensemble.output:
        assert ports[port.name] == (port.data_type, [*port.dims])
    for model in MODELS:  # an empty folder would not survive a copy to an object store
        assert any((written.repository / model / "1").iterdir())


def test_labels_are_the_columns_of_scores(written: Written) -> None:
    for model in ("bank_product", "classifier"):
        (scores,) = [port for port in read_config(written.repository, model).output if port.name == "scores"]
        lines = (written.repository / model / scores.label_filename).read_text(encoding="utf-8").splitlines()
        assert lines == [*written.labels]
        assert [*scores.dims] == [len(lines)]


def test_a_class_with_a_line_break_is_one_line(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", names=("red", "green\u2028thing"))
    write_repository(bundle, tmp_path / "triton")
    assert (tmp_path / "triton" / "bank_product" / "labels.txt").read_text() == "red\ngreen thing\n"


def test_the_encoder_of_another_precision(tmp_path: Path) -> None:
    bundle = add_precision(write_bundle(tmp_path / "bundle"), name=False)
    write_repository(bundle, tmp_path / "triton", "int8")
    copied = (tmp_path / "triton" / "image_encoder" / "1" / "model.onnx").read_bytes()
    assert copied == (bundle / "image_encoder.int8.onnx").read_bytes()
    (group,) = read_config(tmp_path / "triton", "image_encoder").instance_group
    assert group.kind == group.KIND_CPU
    assert "image encoder in int8" in (tmp_path / "triton" / "README.md").read_text()


def test_a_precision_that_the_bundle_lacks(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    with pytest.raises(ConfigError, match="--precision fp16: this bundle has fp32$"):
        write_repository(bundle, tmp_path / "triton", "fp16")
    add_precision(bundle, name=False)
    with pytest.raises(ConfigError, match="--precision fp16: this bundle has fp32, int8$"):
        write_repository(bundle, tmp_path / "triton", "fp16")
    assert listing(tmp_path) == ["bundle"]


def test_the_readmes_client_prepares_as_the_run_time(tmp_path: Path) -> None:
    """The part of the snippet that needs no server is run; a server of this repository cannot be started here."""
    bundle = write_bundle(tmp_path / "bundle")
    write_repository(bundle, tmp_path / "triton")
    code = snippet(open_bundle(bundle).manifest)
    assert f"```python\n{code}```" in (tmp_path / "triton" / "README.md").read_text()
    photo = write_photo(tmp_path / "photo.png")
    tree = ast.parse(code)
    del tree.body[-2:]  # the client, and the loop over its answers
    scope: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["client", str(photo)])
        exec(compile(tree, "snippet", "exec"), scope)  # noqa: S102 - our own text
    np.testing.assert_array_equal(scope["image"], pixels_of(bundle, [photo]))
    assert [*scope["pixels"].shape()] == [1, 3, SIZE, SIZE]


def triton(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    result = triton(bundle, "--out", tmp_path / "triton")
    assert result.exit_code == 0, result.output
    assert f"repository {tmp_path}/triton    4 classes, image encoder in fp32" in result.stdout
    result = triton(bundle, "--out", tmp_path / "other", "--format", "json")
    assert json.loads(result.stdout)["classes"] == 4
    assert listing(tmp_path) == ["bundle", "other", "triton"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bundle", "--out", "there"], "there: exists"),
        (["nothing", "--out", "new"], "nothing: no such folder"),
        (["bundle", "--out", "new", "--precision", "int8"], "--precision int8: this bundle has fp32"),
    ],
)
def test_a_call_that_cannot_succeed_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "bundle")
    (tmp_path / "there").mkdir()
    result = triton(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert message in line
    assert listing(tmp_path) == ["bundle", "there"]


def test_a_product_that_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    monkeypatch.setattr(product, "scale", lambda *_: Scale(1.0, 0.0, 1.0))
    result = triton(bundle, "--out", tmp_path / "triton")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "difference of scores to the run time" in result.stderr
    assert listing(tmp_path) == ["bundle"]


def test_a_bank_above_one_file_and_one_of_background_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, size = with_background(tmp_path / "bundle"), 4 * (4 * 8 + 4 + 8)
    monkeypatch.setattr(product, "LIMIT", size)
    write_repository(bundle, tmp_path / "triton")
    monkeypatch.setattr(product, "LIMIT", size - 1)
    assert "freeze a smaller bank" in triton(bundle, "--out", tmp_path / "new").stderr
    monkeypatch.undo()
    info = {name: ClassInfo(background=True) for name in BANK_NAMES}
    ClassBank.of(BANK_NAMES, name_rows(BANK_NAMES), "e" * 64, info=info).save(bundle / BANK)
    reseal(bundle)
    assert "nothing to answer" in triton(bundle, "--out", tmp_path / "new").stderr
    assert listing(tmp_path) == ["bundle", "triton"]
