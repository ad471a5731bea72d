from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from copy import copy as clone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from support.exported import moved, source_of
from support.folders import listing
from support.tiny import tiny_backbone
from support.traces import kept_graphs

from sar_infer import Classifier
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.card import card
from sar_infer.bundle.manifest import BANK, CARD, MANIFEST
from sar_infer.images.preprocess import normalise, to_input
from sar_train.errors import ClassNameError, ExportError
from sar_train.export import bundle
from sar_train.export.bundle import encoder_digest, export_bundle, images_digest, make_bank
from sar_train.export.fixed import handcrafted
from sar_train.export.layout import layout, tokenizer_spec
from sar_train.export.source import ExportSource
from sar_train.methods.base import methods

TEMPLATE = "a photo of a {}."
ROOT = Path(__file__).parents[3]
EXPORTING = """
import sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, "tests")
from support.tiny import VIT, register
from support.traces import remembered
from sar_train.export import graph
from sar_train.export.bundle import export_bundle
from sar_train.export.source import from_template
graph.translate = partial(remembered, Path(sys.argv[2]))
register()
def tell(line):
    print(line, flush=True)
    time.sleep(60 if line.startswith("comparing") else 0)
source = from_template("a photo of a {}.", {"cat": ("cat",)}, VIT, "random")
export_bundle(source, Path(sys.argv[1]), command="", tell=tell)
"""


def test_what_is_written_says_what_it_is(exported: Path, source: ExportSource) -> None:
    manifest = open_bundle(exported).manifest
    assert (manifest.backbone, manifest.method, manifest.template) == ("tiny-vit", "handcrafted", "a photo of a {}.")
    assert manifest.weights_digest == source.backbone.weights_digest
    assert manifest.logit_scale == pytest.approx(1 / 0.07)
    assert (manifest.tokenizer.n_prefix, manifest.tokenizer.max_name_tokens) == (5, 71)
    assert manifest.quality.parity is not None
    assert manifest.quality.parity.top1_agreement == 1
    assert {"torch", "onnxruntime", "python", "sar-clip"} <= manifest.provenance.versions.keys()
    assert listing(exported.parent) == [exported.name]


def test_the_run_time_classifies_with_it_as_torch_does(exported: Path, source: ExportSource) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    encoded = source.backbone.encode_images(
        torch.from_numpy(to_input(normalise(Image.fromarray(pixels)), source.backbone.preprocess)[None])
    )
    (result,) = Classifier.open(exported, device="cpu").classify(pixels, ["zebra"], top_k=10)
    bank = make_bank(source, "", "")
    rows = dict(zip(bank.names, bank.embeddings, strict=True))
    rows["zebra"] = source.prompted.embed(["zebra"])[0].numpy()
    similarity = {prediction.label: prediction.similarity for prediction in result.predictions}
    assert similarity.keys() == rows.keys()
    for name, row in rows.items():
        assert similarity[name] == pytest.approx(float(encoded[0].numpy() @ row), abs=1e-5)


def test_several_phrases_stand_for_the_direction_of_their_mean(exported: Path, source: ExportSource) -> None:
    bank = ClassBank.load(exported / BANK)
    mean = source.prompted.embed(["tabby cat", "small dog"]).mean(0)
    np.testing.assert_allclose(bank.embeddings[bank.index["pet"]], mean / mean.norm(), atol=1e-6)
    assert dict(bank.info) == {"pet": ClassInfo(phrases=("tabby cat", "small dog"))}
    assert (bank.added_count, bank.provenance["origin"]) == (0, "sar-export")


def test_the_bank_tells_bundles_that_embed_images_alike(exported: Path, source: ExportSource) -> None:
    images, prompted = ClassBank.load(exported / BANK).provenance["images"], source.prompted
    assert images == images_digest(prompted)
    weights, preprocess = source.backbone.weights_digest, source.backbone.preprocess
    for changed in (("0" * 64, preprocess), (weights, dataclasses.replace(preprocess, interpolation="bilinear"))):
        other = clone(prompted)
        other.backbone = SimpleNamespace(weights_digest=changed[0], preprocess=changed[1])  # type: ignore[assignment]
        assert images != images_digest(other)


@pytest.mark.usefixtures("ready_graphs")
def test_replaces_a_bundle_on_request(copy: Path, source: ExportSource) -> None:
    export_bundle(source, copy, command="again", overwrite=True)
    assert open_bundle(copy).manifest.provenance.command == "again"
    assert listing(copy.parent) == ["copy"]


@pytest.mark.usefixtures("ready_graphs")
def test_two_exports_differ_only_in_their_date_and_command(
    exported: Path, source: ExportSource, tmp_path: Path
) -> None:
    export_bundle(source, tmp_path / "new", command="tests")
    old, new = open_bundle(exported), open_bundle(tmp_path / "new")
    assert new.bank.content_digest == old.bank.content_digest
    # safetensors gives its metadata any order, and the card says the date
    files = dict(new.manifest.files) | {name: old.manifest.files[name] for name in (BANK, CARD)}
    same = {"provenance": old.manifest.provenance, "digest": old.manifest.digest, "files": files}
    assert dataclasses.replace(new.manifest, **same) == old.manifest


@pytest.mark.usefixtures("ready_graphs")
def test_a_gate_that_fails_leaves_what_was_there(
    copy: Path, source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / MANIFEST).read_bytes()
    wrong = dataclasses.replace(source, prompted=handcrafted(tiny_backbone(seed=1), TEMPLATE))
    with pytest.raises(ExportError, match="image encoder"):
        export_bundle(wrong, copy, command="", overwrite=True)
    with pytest.raises(ExportError, match="image encoder"):
        export_bundle(wrong, tmp_path / "new", command="")
    assert (copy / MANIFEST).read_bytes() == before
    assert listing(tmp_path) == ["copy"]


@pytest.mark.usefixtures("ready_graphs")
def test_a_name_that_does_not_fit_leaves_nothing(source: ExportSource, tmp_path: Path) -> None:
    long = " ".join(["dog"] * 72)
    with pytest.raises(ClassNameError, match="72"):
        export_bundle(dataclasses.replace(source, phrases={long: (long,)}), tmp_path / "new", command="")
    assert listing(tmp_path) == []


@pytest.mark.usefixtures("ready_graphs")
def test_a_graph_that_onnx_does_not_accept_leaves_nothing(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "export_name_encoder", lambda *_: onnx.ModelProto())
    with pytest.raises(onnx.checker.ValidationError):
        export_bundle(source, tmp_path / "new", command="")
    assert listing(tmp_path) == []


@pytest.mark.usefixtures("exported")
def test_a_kill_in_the_middle_leaves_nothing_at_the_place(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It has the graphs that the export of ``exported`` made."""
    command = [sys.executable, "-c", EXPORTING, str(tmp_path / "new"), str(kept_graphs(tmp_path_factory))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("comparing") for line in process.stdout)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert listing(tmp_path) == [".new.lock", ".new.partial"]  # the lock of a killed process locks nothing
    assert listing(tmp_path / ".new.partial") == [
        "bank.safetensors",
        "image_encoder.onnx",
        "name_encoder.onnx",
        "tokenizer.bpe.gz",
    ]


def test_the_card_is_one_of_its_files(exported: Path) -> None:
    found = open_bundle(exported)
    assert (exported / CARD).read_text(encoding="utf-8") == card(found.manifest, found.bank)
    assert "Pillow" in found.manifest.provenance.versions


def digest(source: ExportSource, merges: bytes = b"merges", **changes: object) -> str:
    placed = layout(source.prompted)
    spec = dataclasses.replace(tokenizer_spec(source.backbone.text, placed), **changes)
    return encoder_digest(source, placed, spec, merges)


def test_weights_template_settings_and_tokenizer_count() -> None:
    source = ExportSource(handcrafted(tiny_backbone(), "a {}."), {}, "handcrafted")
    digests = [
        digest(source),
        digest(dataclasses.replace(source, prompted=handcrafted(tiny_backbone(seed=1), "a {}."))),
        digest(dataclasses.replace(source, prompted=handcrafted(tiny_backbone(), "one {}."))),
        digest(dataclasses.replace(source, settings={"depth": 2})),
        digest(dataclasses.replace(source, method="other")),
        digest(source, suffix="!"),
        digest(source, b"other merges"),
    ]
    assert len(set(digests)) == 7


def test_who_is_in_the_bank_and_how_good_it_is_do_not_count() -> None:
    source = ExportSource(handcrafted(tiny_backbone(), "a {}."), {}, "handcrafted")
    other = dataclasses.replace(source, phrases={"cat": ("cat",)}, regularisers={"sar": 1.0}, licences={"x": "y"})
    assert digest(other) == digest(source)


@pytest.mark.parametrize("name", sorted(methods.entries))
def test_every_tensor_of_a_method_counts(name: str) -> None:
    source = source_of(moved(name), ["cat"])
    tensors = source.prompted.method.state_dict()
    digests = {digest(source)}
    for tensor in tensors.values():
        tensor.view(-1)[0] += 1e-6
        digests.add(digest(source))
    assert len(digests) == 1 + len(tensors)


@pytest.mark.parametrize(("name", "counts"), [("coop", False), ("tcp", True)])
def test_the_template_counts_where_embeddings_are_made_from_it(name: str, counts: bool) -> None:
    digests = {digest(source_of(moved(name, template=text), ["cat"])) for text in ("a photo of a {}.", "one {}.")}
    assert len(digests) == 1 + counts
