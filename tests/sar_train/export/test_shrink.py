"""``sar-bundle shrink`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from support.bundles import at_one
from support.exported import export_run, moved
from support.folders import listing
from support.photos import write_photo
from support.tiny import RESNET, VIT

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_train.cli.shrink import main
from sar_train.export import shrink as shrinking


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(44):
        write_photo(folder / f"{seed:02d}.png", seed)
    return folder


@pytest.fixture
def _open_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights embed all photos much alike, so that agreement is no measure."""
    monkeypatch.setattr(shrinking, "LEAST_AGREEMENT", 0)


def shrink(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("_open_gate")
@pytest.mark.parametrize("backbone", [VIT, RESNET])
def test_a_bundle_gets_smaller_image_encoders(
    backbone: str, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = export_run(moved("coop", backbone), ("cat", "sea lake"), tmp_path / "source")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    both = ("--precision", "fp16", "--precision", "int8", "--photos", photos / "*.png", "--quiet")
    capfd.readouterr()
    result = shrink(source, "--out", tmp_path / "new", *both, "--format", "json")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert capfd.readouterr().err == "", "onnxruntime warned"
    content, bundle = json.loads(result.stdout), open_bundle(tmp_path / "new")
    assert (content["digest"], content["precisions"].keys()) == (bundle.manifest.digest, {"fp16", "int8"})
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert (tmp_path / "new" / IMAGE_ENCODER).samefile(source / IMAGE_ENCODER)
    photo = photos / "00.png"
    full = Classifier(bundle, device="cpu").embed_images(photo)
    for precision, least in (("fp16", 0.9999), ("int8", 0.97)):
        variant = bundle.manifest.precisions[precision]
        assert (variant.file, variant.photos) == (f"image_encoder.{precision}.onnx", 22)
        assert 1.00001 > variant.mean_cosine > least
        rows = Classifier(bundle, device="cpu", precision=precision).embed_images(photo)
        assert 1.00001 > (rows * full).sum() > least
        assert not np.array_equal(rows, full)
    again = shrink(tmp_path / "new", "--out", tmp_path / "new", *both[2:], "--overwrite")
    assert again.exit_code == 0, again.output
    assert "int8       22 photos: cosine" in again.stdout
    assert open_bundle(tmp_path / "new").manifest.precisions.keys() == {"fp16", "int8"}


def test_what_rounding_the_weights_adds_on_average_is_taken_from_the_biases(tmp_path: Path) -> None:
    """Of the last convolution's weights all but one are 0.4 of a step: rounding makes them zero."""
    weights = np.full((4, 4, 3, 3), 0.4 / 127, np.float32)
    weights[:, 0, 1, 1] = 1
    same = np.eye(4, dtype=np.float32)[..., np.newaxis, np.newaxis]
    layers = {"a": same[:, :3], "b": same, "c": weights}
    nodes = [
        onnx.helper.make_node("Conv", [before, f"{name}.w", f"{name}.b"], [name], name, pads=[size // 2] * 4)
        for (name, w), before in zip(layers.items(), "xab", strict=True)
        for size in w.shape[-1:]
    ]
    tensors = [onnx.numpy_helper.from_array(w, f"{name}.w") for name, w in layers.items()]
    tensors += [onnx.numpy_helper.from_array(np.ones(4, np.float32), f"{name}.b") for name in layers]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", channels, 8, 8])
        for name, channels in (("x", 3), ("c", 4))
    ]
    graph = onnx.helper.make_graph(nodes, "encoder", values[:1], values[1:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "plain.onnx")
    photos = np.random.default_rng(0).random((16, 3, 8, 8), np.float32)
    small = shrinking.in_int8(tmp_path / "plain.onnx", lambda: iter([photos[:8], photos[8:]]))
    full, rounded = (
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"x": photos})[0] for one in (model, small)
    )
    np.testing.assert_allclose(rounded.mean((0, 2, 3)), full.mean((0, 2, 3)), atol=0.01)
    onnx.save(at_one(model), tmp_path / "one.onnx")
    one = shrinking.in_int8(tmp_path / "one.onnx", lambda: iter([photos[:8], photos[8:]]))
    session = onnxruntime.InferenceSession(one.SerializeToString())
    by_one = np.concatenate([session.run(None, {"x": photo[np.newaxis]})[0] for photo in photos])
    np.testing.assert_allclose(by_one, rounded, atol=0.02)


def test_a_graph_that_answers_otherwise_is_not_written(
    exported: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shrinking, "LEAST_COSINE", 1.1)
    result = shrink(exported, "--out", tmp_path / "new", "--precision", "fp16", "--photos", photos, "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: image_encoder.fp16.onnx on 22 photos, mean cosine to float32: ")
    assert result.stderr.endswith("expected at least 1.1; nothing was written\n")
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "new", "--photos", "nothing"], "nothing: "),
        (["--out", "new", "--photos", "few"], "3 photos that differ"),
        (["--out", "few", "--photos", "few"], "exists; choose another --out"),
    ],
)
def test_a_call_that_cannot_succeed_is_one_line(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        write_photo(tmp_path / "few" / f"{seed}.png", seed)
    result = shrink(exported, "--precision", "int8", *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert listing(tmp_path) == ["few"]
