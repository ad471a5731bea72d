"""The digest of the code follows what a number can depend on, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sar_infer
import sar_train
from sar_train.experiment import code


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return copies of both packages, without large files."""
    large, folder = shutil.ignore_patterns("*.safetensors", "*.gz", "__pycache__"), tmp_path_factory.mktemp("copies")
    for package in (sar_train, sar_infer):
        shutil.copytree(Path(package.__path__[0]), folder / package.__name__, ignore=large)
    return folder / "sar_train", folder / "sar_infer"


def fresh(copies: tuple[Path, Path]) -> str:
    code.digest.cache_clear()
    return code.digest(*copies)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("training/loop.py", True),
        ("regularisers/sar.py", True),
        ("assets/new.txt", True),
        ("../sar_infer/class_model/model.py", True),
        ("../sar_infer/images/load.py", True),
        ("cli/train.py", False),
        ("export/graph.py", False),
        ("report/results.py", False),
        ("../sar_infer/cli/classify.py", False),
    ],
)
def test_a_changed_source_changes_the_digest_if_a_number_depends_on_it(
    copies: tuple[Path, Path], file: str, counts: bool
) -> None:
    before, path = fresh(copies), copies[0] / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + "\n")
    assert (fresh(copies) != before) is counts


def test_a_renamed_source_changes_the_digest(copies: tuple[Path, Path]) -> None:
    before = fresh(copies)
    (copies[0] / "training" / "loop.py").rename(copies[0] / "training" / "loops.py")
    assert fresh(copies) != before
