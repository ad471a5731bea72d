"""One tiny bundle for all tests of the run time; a test that changes it works on a copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import write_bundle

from sar_infer import Classifier
from sar_infer.encoders import processor


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def classifier(bundle_path: Path) -> Classifier:
    return Classifier.open(bundle_path)


@pytest.fixture
def bundle_copy(bundle_path: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_path, tmp_path / "copy")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> Path:
    """An empty working folder; the environment names the tiny bundle, and nothing else of ours."""
    monkeypatch.chdir(tmp_path)
    for key in [key for key in os.environ if key.startswith("SAR_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("SAR_BUNDLE", str(bundle_path))
    return tmp_path


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    folder = Path(__file__).parents[3] / "shared" / "data" / "imagenet_sample"
    if not folder.is_dir():
        pytest.skip("needs the photos of ../shared/data/imagenet_sample")
    return sorted(folder.glob("*.jpg"))[::50]


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes this an x86 machine with VNNI, or another, and returns what it says of its CPU."""
    info = tmp_path_factory.mktemp("cpu") / "cpuinfo"

    def become(flags: str = "flags : avx2 avx512_vnni", machine: str = "x86_64", system: str = "linux") -> Path:
        monkeypatch.setattr("platform.machine", lambda: machine)
        monkeypatch.setattr("sys.platform", system)
        monkeypatch.setattr(processor, "_CPU_INFO", info)
        info.write_text(flags)
        return info

    return become
