"""Exporting takes seconds even for a tiny backbone, so one bundle is made for all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.tiny import VIT, register

from sar_train.clip.backbone import RANDOM
from sar_train.export.bundle import export_bundle
from sar_train.export.source import ExportSource, from_template

NAMES = ("golden retriever", "red fox", "kitchen", "sorrel horse")


@pytest.fixture(scope="session")
def source() -> ExportSource:
    register()
    phrases = {name: (name,) for name in NAMES} | {"pet": ("tabby cat", "small dog")}
    return from_template("a photo of a {}.", phrases, VIT, RANDOM)


@pytest.fixture(scope="session")
def exported(source: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny backbone; do not change it."""
    path = tmp_path_factory.mktemp("exported") / "tiny"
    export_bundle(source, path, command="tests")
    return path


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "copy")
