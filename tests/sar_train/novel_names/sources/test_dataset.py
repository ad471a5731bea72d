"""Another dataset's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sar_train.errors import ConfigError, DataError
from sar_train.novel_names import SourceOptions, novel_names, open_novel_source


def split_file(root: Path) -> Path:
    names = ["River", "Highway", "Forest", "Sea_Lake"]
    rows = [[f"{name}/1.jpg", label, name] for label, name in enumerate(names)]
    (root / "eurosat").mkdir()
    (root / "eurosat" / "split_zhou_EuroSAT.json").write_text(json.dumps({"train": rows, "val": [], "test": []}))
    return root


def test_names_come_from_a_split_file_without_a_photo(tmp_path: Path) -> None:
    source = open_novel_source("dataset:eurosat", SourceOptions(data_root=split_file(tmp_path)))
    found = novel_names(source, ["dog"], new=["forest"])
    assert sorted(found.names) == ["Highway", "River", "Sea Lake"]
    assert (found.overlap, found.source) == (1, "dataset:eurosat")


def test_imagenet_needs_nothing_and_the_seed_decides() -> None:
    first, again, other = (novel_names("dataset:imagenet", ["tench"], count=30, seed=s).names for s in (1, 1, 2))
    assert first == again != other
    assert len(novel_names("dataset:imagenet", ["tench"], count=2000).names) > 990


def test_what_is_no_dataset() -> None:
    with pytest.raises(ConfigError, match="dataset:NAME"):
        open_novel_source("dataset")
    with pytest.raises(DataError, match="eurosat: .*--data-root"):
        novel_names("dataset:eurosat", ["dog"])
    with pytest.raises(DataError, match="eurosatt: .* eurosat"):
        novel_names("dataset:eurosatt", ["dog"])
