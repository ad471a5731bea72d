"""The digest of the code follows what a number can depend on, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sar_infer
import sar_train
from sar_train.experiment import code


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    kept = shutil.ignore_patterns("*.safetensors", "*.gz", "__pycache__")
    for package in (sar_train, sar_infer):
        shutil.copytree(Path(package.__path__[0]), tmp_path / package.__name__, ignore=kept)
    return tmp_path / "sar_train", tmp_path / "sar_infer"


def fresh(copies: tuple[Path, Path]) -> str:
    code.digest.cache_clear()
    return code.digest(*copies)


@pytest.mark.parametrize(
    "file",
    [
        "training/loop.py",
        "regularisers/sar.py",
        "assets/new.txt",
        "experiment/transfer.py",
        "../sar_infer/classifiers/statistics.py",
        "../sar_infer/classify/calibration.py",
        "../sar_infer/images/load.py",
    ],
)
def test_a_changed_source_changes_the_digest(copies: tuple[Path, Path], file: str) -> None:
    before = fresh(copies)
    path = copies[0] / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + "\n")
    assert fresh(copies) != before


@pytest.mark.parametrize(
    "file", ["cli/train.py", "export/graph.py", "report/results.py", "../sar_infer/cli/classify.py"]
)
def test_a_source_that_no_number_depends_on_does_not(copies: tuple[Path, Path], file: str) -> None:
    before = fresh(copies)
    (copies[0] / file).write_text("changed")
    assert fresh(copies) == before


def test_a_renamed_source_changes_the_digest(copies: tuple[Path, Path]) -> None:
    before = fresh(copies)
    (copies[0] / "training" / "loop.py").rename(copies[0] / "training" / "loops.py")
    assert fresh(copies) != before


def test_identity_names_version_and_digest() -> None:
    found = code.identity()
    assert found.keys() == {"version", "digest"}
    assert len(found["digest"]) == 16
