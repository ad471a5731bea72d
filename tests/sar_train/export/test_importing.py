"""``sar-bundle import``: towers that others publish become a bundle, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import open_clip
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from support import towers as published

from sar_infer import Classifier
from sar_infer.bundle.bundle import default_bundle, open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_infer.encoders.gate import shipped_photos
from sar_infer.images.prefetch import decode_image
from sar_train.cli.importing import main
from sar_train.clip import backbone as backbones
from sar_train.errors import BackboneError, ConfigError
from sar_train.export.importing import graphs
from sar_train.export.shrink import in_float16

BLOCKED = ("torch", "open_clip", "torchvision", "timm", "transformers")
WITHOUT_TORCH = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from sar_infer.cli.bundle import main
main(prog_name="sar-bundle")
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``sar-bundle`` where torch and its relatives cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def imported(source: object, out: Path, *options: object) -> Path:
    """Import, and return the bundle's folder."""
    done = run("import", source, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    return out


def refused(source: object, out: Path, *options: object, code: int = 2) -> str:
    """Return the one line that an import ends with."""
    result = CliRunner().invoke(main, [str(source), "--out", str(out), *map(str, options)])
    assert result.exit_code == code, result.output
    assert not out.exists()
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    return line


@pytest.fixture(scope="module")
def mini() -> Any:
    return backbones.load("sar-mini", None).model


@pytest.fixture(scope="module")
def transformers_js(tmp_path_factory: pytest.TempPathFactory, mini: Any) -> Path:
    """`sar-mini` with outside data, and outputs that are not of unit length."""
    folder = tmp_path_factory.mktemp("js")
    published.transformers_js(
        folder,
        lambda x: (3 * mini.encode_image(x),),
        lambda x: (mini.encode_text(x),),
        mini,
        published.CLIP_PROCESSOR,
        {"model_type": "clip", "text_config": {"max_position_embeddings": 77}},
        mask=False,
        length=77,
        data=True,
    )
    published.save_clip_tokenizer(folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    return folder


GARMENTS = Path("examples/clothes/train"), Path("examples/clothes/test")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["Immich", "transformers.js"])
def test_garments_get_the_names_that_torch_gives_them(
    transformers_js: Path, tmp_path: Path, mini: Any, layout: str
) -> None:
    """The bundle that ships has a learned prompt, so the reference is torch with the template of the import."""
    towers = shutil.copytree(transformers_js, tmp_path / "towers")
    if layout == "Immich":
        config = {"embed_dim": 512, "text_cfg": {"context_length": 77}}
        towers = published.immich(tmp_path / "immich", mini, config, published.OPEN_CLIP_PREPROCESS)
        published.save_clip_tokenizer(towers / "textual")
    published.save_in_half(towers, keep_io_types=layout == "Immich")
    whole, half = tmp_path / "fp32", tmp_path / "fp16"
    for out in (whole, half):
        main([str(towers), "--precision", out.name, "--out", str(out), "-q"], standalone_mode=False)
    garments = sorted(folder.name for folder in GARMENTS[0].iterdir())
    photos = [photo for name in garments for photo in sorted((GARMENTS[1] / name).iterdir())]
    pixels = np.stack([decode_image(photo, open_bundle(whole).manifest.preprocess) for photo in photos])
    tokens = open_clip.get_tokenizer("ViT-B-32")([f"a photo of a {name}." for name in garments])
    with torch.no_grad():
        images = mini.encode_image(torch.from_numpy(pixels), normalize=True).numpy()
        names = mini.encode_text(tokens, normalize=True).numpy()
    expected = (images @ names.T).argmax(1)
    assert (expected == np.arange(90) // 15).sum() == 38
    for bundle, every, least_cosine, most_others in ((whole, 1, 0.99999, 0), (half, 3, 0.9999, 1)):
        classifier = Classifier.open(bundle)
        assert classifier.choice.precision == Classifier(bundle, precision="auto").choice.precision == bundle.name
        rows, words = classifier.embed_images(photos[::every]), classifier.embed_names(garments)
        assert min((rows * images[::every]).sum(1).min(), (words * names).sum(1).min()) > least_cosine
        assert ((rows @ words.T).argmax(1) != expected[::every]).sum() <= most_others
    with pytest.raises(ConfigError, match="computes in float16; expected float32"):
        in_float16(half / IMAGE_ENCODER)
    manifest = open_bundle(whole).manifest
    assert manifest.tokenizer is not None and manifest.tokenizer.kind == "clip-bpe"
    assert [*manifest.provenance.licences.values()] == ["none stated" if layout == "Immich" else "mit"]
    assert manifest.quality.tables["import"]["photos"] == 14


# ------------------------------------------------------------------------------- towers that agree, and that do not
NAMES = [*shipped_photos()]


@pytest.fixture(scope="module")
def rows() -> Any:
    """Embeddings of the names of the shipped photos by `sar-mini`."""
    return Classifier.open(default_bundle()).embed_names(NAMES)


@pytest.fixture
def siglip(tmp_path: Path, rows: Any) -> Path:
    """`sar-mini`'s image tower, and a text tower that reads the padding."""
    folder = tmp_path / "towers"
    published.shipped_image_tower(folder / "onnx/vision_model.onnx")
    published.write_json(folder / "preprocessor_config.json", published.CLIP_PROCESSOR)
    published.bag_of_words(folder, NAMES, rows, "onnx/text_model.onnx")
    return folder


def change(path: Path, **changes: Any) -> None:
    published.write_json(path, json.loads(path.read_text()) | changes)


def test_every_layout_gives_the_same_encoder(siglip: Path, tmp_path: Path) -> None:
    towers = [imported(siglip, tmp_path / "b")]
    fastembed = tmp_path / "image", tmp_path / "text"
    for folder in fastembed:
        shutil.copytree(siglip, folder)
    for folder, tower in zip(fastembed, ("vision", "text"), strict=True):
        (folder / f"onnx/{tower}_model.onnx").rename(folder / "model.onnx")
        shutil.rmtree(folder / "onnx")
    towers.append(imported(fastembed[0], tmp_path / "c", "--text", fastembed[1]))
    files = ["--image", siglip / "onnx/vision_model.onnx", "--text", siglip / "onnx/text_model.onnx"]
    files += ["--tokenizer", siglip / "tokenizer.json", "--preprocess", siglip / "preprocessor_config.json"]
    done = run("import", *files, "--out", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    opened = [open_bundle(folder) for folder in (*towers, tmp_path / "d")]
    assert len({bundle.manifest.encoder_digest for bundle in opened}) == 1
    manifest = opened[0].manifest
    assert manifest.tokenizer is not None
    assert (manifest.tokenizer.kind, manifest.tokenizer.context_length) == ("tokenizer.json", published.WORDS)
    assert manifest.preprocess.crop == "floor"
    assert manifest.logit_bias == -10
    assert manifest.quality.tables["import"]["nearest to their own name"] >= 9


def test_an_image_tower_alone_knows_classes_by_photos(siglip: Path, tmp_path: Path) -> None:
    (siglip / "onnx/text_model.onnx").unlink()
    bundle = open_bundle(imported(siglip, tmp_path / "b"))
    assert bundle.manifest.tokenizer is None
    assert not bundle.bank.names


def test_names_of_the_bank_and_names_that_are_added(siglip: Path, tmp_path: Path, rows: Any) -> None:
    (tmp_path / "names.txt").write_text("thing = shoe | hat\n")
    classifier = Classifier.open(imported(siglip, tmp_path / "b", "--classes", tmp_path / "names.txt")).add("cat")
    mean = rows[[NAMES.index("shoe"), NAMES.index("hat")]].mean(0)
    expected = np.stack([mean / np.linalg.norm(mean), rows[NAMES.index("cat")]])
    np.testing.assert_allclose(classifier.bank.embeddings, expected, atol=1e-4)
    assert classifier.classify(shipped_photos()["cat"]).label == "cat"


def other_padding(folder: Path, rows: Any) -> None:
    change(folder / "tokenizer_config.json", **{"pad_token": "</s>"})


def other_space(folder: Path, rows: Any) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(rows.shape[1],) * 2))[0].astype(np.float32)
    published.bag_of_words(folder, NAMES, rows @ turn, "onnx/text_model.onnx", output="last_hidden_mean")


def other_pixels(folder: Path, rows: Any) -> None:
    published.shipped_image_tower(folder / "onnx/vision_model.onnx", factor=255)


@pytest.mark.parametrize("damage", [other_padding, other_space, other_pixels])
def test_towers_that_do_not_agree_end_the_import(
    siglip: Path, tmp_path: Path, rows: Any, damage: Callable[[Path, Any], None]
) -> None:
    damage(siglip, rows)
    line = refused(siglip, tmp_path / "b", code=1)
    assert "the towers do not agree: " in line
    assert "the padding of names, an output that is not the projected embedding" in line
    imported(siglip, tmp_path / "b", "--no-check")


def config(name: str, **keys: Any) -> Callable[[Path, Any], None]:
    return lambda folder, rows: change(folder / f"{name}.json", **keys)


def unprojected(folder: Path, rows: Any) -> None:
    published.bag_of_words(folder, NAMES, rows[:, :300], "onnx/text_model.onnx")


def custom(folder: Path, rows: Any) -> None:
    node = helper.make_node("Quick", ["pixel_values"], ["image_embeds"], domain="com.acme")
    image_graph(folder, [node], {})


def both(folder: Path, rows: Any) -> None:
    model = onnx.load(folder / "onnx/text_model.onnx")
    model.graph.input.append(helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, 256, 256]))
    onnx.save(model, folder / "onnx/text_model.onnx")


def hidden_states(folder: Path, rows: Any) -> None:
    image_graph(folder, [helper.make_node("Identity", ["pixel_values"], ["last_hidden_state"])], {}, 4)


def no_graph(folder: Path, rows: Any) -> None:
    (folder / "onnx/vision_model.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def data_beyond(folder: Path, rows: Any) -> None:
    outside(folder, "../../secret")


def data_missing(folder: Path, rows: Any) -> None:
    outside(folder, "model.onnx_data")


def data_short(folder: Path, rows: Any) -> None:
    (folder / "onnx/model.onnx_data").write_bytes(b"1234")
    outside(folder, "model.onnx_data")


def data_linked(folder: Path, rows: Any) -> None:
    (folder.parent / "secret").write_bytes(bytes(40))
    (folder / "onnx/model.onnx_data").symlink_to(folder.parent / "secret")
    outside(folder, "model.onnx_data")


def data_without_end(folder: Path, rows: Any) -> None:
    outside(folder, "model.onnx_data", [2**40])


def beyond_2_gib(folder: Path, rows: Any) -> None:
    (folder / "onnx/text_model.onnx").rename(folder / "onnx/text_model_fp16.onnx")
    with (folder / "onnx/text_model.onnx").open("wb") as sparse:
        sparse.truncate(2**31 + 1)


def tokenizer_panics(folder: Path, rows: Any) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"] = {"type": "WordLevel", "vocab": {"a": 2**32 - 1, "<unk>": 1}, "unk_token": "<unk>"}
    published.write_json(folder / "tokenizer.json", content)


def tokenizer_grows(folder: Path, rows: Any) -> None:
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    change(folder / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [replace] * 9})


def image_graph(folder: Path, nodes: Any, constants: Any, axes: int = 2) -> None:
    shape = ["n", 512, 1, 1][:axes]
    (name,) = nodes[-1].output
    path = folder / "onnx/vision_model.onnx"
    published.write_graph(path, nodes, constants, "pixel_values", TensorProto.FLOAT, ["n", 3, 256, 256], name, shape)


def outside(folder: Path, location: str, shape: Any = (10,)) -> None:
    """Let the image tower have weights in another file."""
    model = onnx.load(folder / "onnx/vision_model.onnx")
    tensor = TensorProto(name="far", dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model.graph.initializer.append(tensor)
    onnx.save(model, folder / "onnx/vision_model.onnx")


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (
            config("tokenizer_config", pad_token=None),
            "no configuration states the padding, and onnx/text_model.onnx reads it",
        ),
        (config("tokenizer_config", **{"pad_token": "\ud800"}), "pad_token '\\ud800' is not in the vocabulary"),
        (config("preprocessor_config", size=10**9, crop_size=10**9), "preprocess.size: expected 1 to 4096"),
        (
            config("config", text_config={"max_position_embeddings": 10**9}),
            "tokenizer.context_length: expected 2 to 65536",
        ),
        (config("tokenizer_config", padding_side="left"), "pads at the left"),
        (unprojected, "output pooler_output has 300 numbers, the image tower's 512; an output before the projection"),
        (config("preprocessor_config", max_num_patches=256), "images of any shape (NaFlex)"),
        (config("preprocessor_config", do_rescale=False), "do_rescale: expected True, got False"),
        (custom, "needs the custom operator com.acme:Quick"),
        (both, "expected one input, text or input_ids, got input_ids, pixel_values"),
        (hidden_states, "got last_hidden_state"),
        (no_graph, "not a readable ONNX file"),
        (data_beyond, "refers to data beyond its folder: '../../secret'"),
        (data_missing, "needs its data, onnx/model.onnx_data, which is missing"),
        (data_short, "expected 40 bytes of weights for 'far'"),
        (data_linked, "leads out of the folder"),
        (data_without_end, "a bundle's graph 2 GiB"),
        (beyond_2_gib, "graph 2 GiB; use --precision fp16, the publisher's onnx/text_model_fp16.onnx"),
        (tokenizer_panics, "tokenizer"),
        (tokenizer_grows, "makes texts more than"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(
    siglip: Path, tmp_path: Path, rows: Any, damage: Callable[[Path, Any], None], line: str
) -> None:
    damage(siglip, rows)
    assert line in refused(siglip, tmp_path / "b")


def test_a_graph_without_end_is_stopped(siglip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "TRIAL_SECONDS", 1.0)
    model = onnx.load(siglip / "onnx/vision_model.onnx")
    output = model.graph.output[0].name
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["going"]), helper.make_node("Add", ["state", "state"], ["stated"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("stated", TensorProto.FLOAT, None),
        ],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "turns"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "first"))
    model.graph.node.append(helper.make_node("Loop", ["turns", "first", output], ["without_end"], body=body))
    model.graph.output[0].name = "without_end"
    onnx.save(model, siglip / "onnx/vision_model.onnx")
    assert "has given no answer within 1 s" in refused(siglip, tmp_path / "b")


def test_sar_train_refuses_a_bundle_in_one_line() -> None:
    with pytest.raises(BackboneError, match="is a bundle, whose ONNX graphs have no weights to train a prompt on"):
        backbones.load(str(default_bundle()), None)


def test_what_is_not_installed_is_named(siglip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith("sar_train.export.importing")]:
        monkeypatch.delitem(sys.modules, name)
    assert "pip install '.[import]'" in refused(siglip, tmp_path / "b")
