from __future__ import annotations

import dataclasses
import re
from copy import copy as clone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import open_clip
import pytest
from support.exported import moved, source_of
from support.folders import listing
from support.tiny import tiny_backbone

from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.card import card
from sar_infer.bundle.manifest import BANK, CARD, MANIFEST, TOKENIZER
from sar_infer.encoders.parity import checks
from sar_infer.text.tokenizer import Tokenizer
from sar_train.clip.full_text import merges_text
from sar_train.errors import ClassNameError, ExportError
from sar_train.export import bundle
from sar_train.export.bundle import encoder_digest, export_bundle, images_digest
from sar_train.export.name_encoder import layout, tokenizer_spec
from sar_train.export.source import ExportSource
from sar_train.methods.base import methods
from sar_train.training.prompted import handcrafted


def test_a_bundle_says_what_it_is_and_passes_its_checks(exported: Path, source: ExportSource) -> None:
    opened = open_bundle(exported)
    manifest = opened.manifest
    assert (manifest.backbone, manifest.method, manifest.template) == ("tiny-vit", "handcrafted", "a photo of a {}.")
    assert manifest.weights_digest == source.backbone.weights_digest
    assert manifest.logit_scale == pytest.approx(1 / 0.07)
    assert (manifest.tokenizer.n_prefix, manifest.tokenizer.max_name_tokens) == (5, 71)
    assert manifest.quality.parity is not None
    assert manifest.quality.parity.top1_agreement == 1
    assert {"torch", "onnxruntime", "python", "sar-clip", "Pillow"} <= manifest.provenance.versions.keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", manifest.provenance.created)
    assert (exported / CARD).read_text(encoding="utf-8") == card(manifest, opened.bank)
    assert listing(exported.parent) == [exported.name]
    now = {check.what: check.value for check in checks(opened)}
    assert now["self-test image, cosine"] > 0.99999
    assert now["5 bank rows made again, difference"] < 1e-6
    assert now["batches of 1, 2, 7 and 33, difference"] < 1e-6


def test_several_phrases_stand_for_the_direction_of_their_mean(exported: Path, source: ExportSource) -> None:
    bank = ClassBank.load(exported / BANK)
    mean = source.prompted.embed(["tabby cat", "small dog"]).mean(0)
    np.testing.assert_allclose(bank.entry("pet").embedding, mean / mean.norm(), atol=1e-6)
    assert [(one.name, one.phrases) for one in bank.special.values()] == [("pet", ("tabby cat", "small dog"))]
    assert (bank.added_count, bank.provenance["origin"]) == (0, "sar-export")


def test_the_bank_tells_bundles_that_embed_images_alike(exported: Path, source: ExportSource) -> None:
    images, prompted = ClassBank.load(exported / BANK).images.digest, source.prompted
    assert images == images_digest(prompted)
    weights, preprocess = source.backbone.weights_digest, source.backbone.preprocess
    for changed in (("0" * 64, preprocess), (weights, dataclasses.replace(preprocess, interpolation="bilinear"))):
        other = clone(prompted)
        other.backbone = SimpleNamespace(weights_digest=changed[0], preprocess=changed[1])  # type: ignore[assignment]
        assert images != images_digest(other)


def test_another_export_differs_only_in_its_date_and_command(exported: Path, copy: Path, source: ExportSource) -> None:
    export_bundle(source, copy, command="again", overwrite=True)
    old, new = open_bundle(exported), open_bundle(copy)
    assert new.manifest.provenance.command == "again"
    assert new.bank.content_digest == old.bank.content_digest
    # safetensors gives its metadata any order, and the card says the date
    files = dict(new.manifest.files) | {name: old.manifest.files[name] for name in (BANK, CARD)}
    same = {"provenance": old.manifest.provenance, "digest": old.manifest.digest, "files": files}
    assert dataclasses.replace(new.manifest, **same) == old.manifest
    assert listing(copy.parent) == ["copy"]


@pytest.mark.parametrize(
    ("encoder", "graph", "name", "error"),
    [
        ("image", None, "cat", ExportError),  # of another backbone
        ("name", onnx.ModelProto(), "cat", onnx.checker.ValidationError),
        ("name", None, " ".join(["dog"] * 72), ClassNameError),
    ],
    ids=["gate", "graph", "name"],
)
def test_what_fails_leaves_the_disk_as_it_was(
    copy: Path,
    source: ExportSource,
    monkeypatch: pytest.MonkeyPatch,
    encoder: str,
    graph: onnx.ModelProto | None,
    name: str,
    error: type[Exception],
) -> None:
    made = graph or onnx.load(copy / f"{encoder}_encoder.onnx")
    monkeypatch.setattr(bundle, f"export_{encoder}_encoder", lambda *_: made)
    other = handcrafted(tiny_backbone(seed=1), "a photo of a {}.")
    failing = dataclasses.replace(source, prompted=other, phrases={name: (name,)})
    before = (copy / MANIFEST).read_bytes()
    for out in (copy, copy.parent / "new"):
        with pytest.raises(error):
            export_bundle(failing, out, command="", overwrite=True)
    assert (copy / MANIFEST).read_bytes() == before
    assert listing(copy.parent) == ["copy"]


def digest(source: ExportSource, merges: bytes = b"merges", **changes: object) -> str:
    placed = layout(source.prompted)
    spec = dataclasses.replace(tokenizer_spec(source.backbone.text, placed), **changes)
    return encoder_digest(source, placed.template, spec, merges)


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


def test_the_run_time_encodes_names_like_open_clip(exported: Path) -> None:
    assert (exported / TOKENIZER).read_bytes()[4:8] == bytes(4)  # no time, so that it is the same file every time
    text = "A golden retriever's 23 friends: café, naïve — 犬"
    assert Tokenizer.open(exported / TOKENIZER).encode(text) == open_clip.get_tokenizer("ViT-B-32").encode(text)
    with pytest.raises(ExportError, match="32000"):
        merges_text(32_000)
