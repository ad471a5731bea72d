from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.bundles import reseal, write_tokenizer
from support.exported import moved, source_of
from support.tiny import tiny_backbone

from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import MANIFEST, REFERENCE_ENCODER, TOKENIZER, Manifest
from sar_infer.encoders.encoders import NameEncoder
from sar_infer.errors import BundleError
from sar_infer.text.tokenizer import encode_name
from sar_train.cli.export import main
from sar_train.errors import ExportError
from sar_train.export import parity
from sar_train.export.bundle import export_bundle, write_reference

NAMES = ("cat", "sea lake", "red car")
TEMPLATE = "a bad photo of the {}, a pet!"  # neither prefix nor suffix are those of the learned prompt


@pytest.fixture(scope="module")
def referenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "bundle"
    source = source_of(moved("coop", template=TEMPLATE), NAMES)
    export_bundle(source, folder, command="tests", with_reference=True)
    return folder


def test_the_reference_gives_the_handcrafted_embeddings(referenced: Path) -> None:
    bundle = open_bundle(referenced)
    made = bundle.manifest.reference
    assert made is not None
    assert (made.template, made.tokenizer.suffix) == (TEMPLATE, ", a pet!")
    assert made.tokenizer.n_prefix != bundle.manifest.tokenizer.n_prefix
    encoder = NameEncoder(referenced / REFERENCE_ENCODER, bundle.manifest.embed_dim, made.tokenizer.end_token, "cpu")
    found = encoder.encode([encode_name(bundle.tokenizer, made.tokenizer, name) for name in NAMES])
    backbone = tiny_backbone()
    expected = backbone.embed_names(NAMES, TEMPLATE).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - bundle.bank.embeddings).max() > 0.01


def test_without_the_option_there_is_none(exported: Path) -> None:
    manifest = open_bundle(exported).manifest
    assert manifest.reference is None
    assert REFERENCE_ENCODER not in manifest.files


def test_a_graph_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tokenizer(tmp_path / TOKENIZER)
    monkeypatch.setattr(parity, "MAX_DIFFERENCE", 0.0)
    with pytest.raises(ExportError, match=REFERENCE_ENCODER):
        write_reference(tmp_path, source_of(moved("coop"), NAMES), NAMES)


def test_described_and_listed_or_neither(referenced: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(referenced, tmp_path / "copy")
    manifest = Manifest.parse((copy / MANIFEST).read_text("utf-8"))
    fields = {name: getattr(manifest, name) for name in ("embed_dim", "preprocess", "tokenizer", "encoder_digest")}
    reseal(copy, **fields, reference=manifest.reference)
    assert open_bundle(copy).manifest.reference == manifest.reference
    reseal(copy, **fields)
    with pytest.raises(BundleError, match=f"{REFERENCE_ENCODER} contradict"):
        open_bundle(copy)
    (copy / REFERENCE_ENCODER).unlink()
    reseal(copy, **fields, reference=manifest.reference)
    with pytest.raises(BundleError, match="contradict"):
        open_bundle(copy)


def test_the_graph_must_fit_the_manifest(referenced: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(referenced, tmp_path / "copy")
    manifest = Manifest.parse((copy / MANIFEST).read_text("utf-8"))
    fields = {name: getattr(manifest, name) for name in ("embed_dim", "preprocess", "tokenizer", "encoder_digest")}
    shutil.copy(copy / "image_encoder.onnx", copy / REFERENCE_ENCODER)
    reseal(copy, **fields, reference=manifest.reference)
    with pytest.raises(BundleError, match=f"{REFERENCE_ENCODER}: .*'tokens'"):
        open_bundle(copy)


def test_an_untuned_bundle_is_its_own_reference(tmp_path: Path) -> None:
    arguments = ["--handcrafted", "a {}.", "--with-reference", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "leave --with-reference out" in result.stderr
