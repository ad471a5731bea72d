"""Exporting takes seconds even for a tiny backbone, so its graphs are made once and handed out."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from support.tiny import VIT, register

from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_train.clip.backbone import RANDOM
from sar_train.export import bundle
from sar_train.export.source import ExportSource, from_template

TEMPLATE = "a photo of a {}."
NAMES = ("golden retriever", "red fox", "kitchen", "sorrel horse")


@pytest.fixture(scope="session")
def source() -> ExportSource:
    register()
    phrases = {name: (name,) for name in NAMES} | {"pet": ("tabby cat", "small dog")}
    return from_template(TEMPLATE, phrases, VIT, RANDOM)


@pytest.fixture(scope="session")
def exported(source: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of the tiny backbone; do not change it."""
    path = tmp_path_factory.mktemp("exported") / "tiny"
    bundle.export_bundle(source, path, command="tests")
    return path


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.fixture
def ready_graphs(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use graphs that were already exported."""
    monkeypatch.setattr(bundle, "export_image_encoder", lambda *_: onnx.load(exported / IMAGE_ENCODER))
    monkeypatch.setattr(bundle, "export_name_encoder", lambda *_: onnx.load(exported / NAME_ENCODER))
