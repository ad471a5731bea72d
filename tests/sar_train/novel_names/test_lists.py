"""Sources that are a list of names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.blobs import write_blobs
from support.coop import write_split

from sar_train.errors import ConfigError, DataError, SarTrainError
from sar_train.novel_names.gather import novel_names
from sar_train.novel_names.source import SourceOptions, open_novel_source
from sar_train.training import trainer


@pytest.mark.parametrize(
    ("text", "content", "error", "fact"),
    [
        ("file:x", "", DataError, "x contains no name"),
        ("file:x", "# only\n", DataError, "x contains no name"),
        ("file:x", "\udcff", DataError, "UTF-8"),
        ("file:x", "a\0b", DataError, "binary"),
        ("file:x", None, ConfigError, "file:x: no such file"),
        ("file", "", ConfigError, "file: no such file"),
        ("dataset", "", ConfigError, "dataset:NAME"),
        ("dataset:eurosat", "", DataError, "eurosat: .*--data-root"),
        ("dataset:eurosatt", "", DataError, "eurosatt: .* eurosat"),
    ],
)
def test_a_source_without_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    content: str | None,
    error: type[SarTrainError],
    fact: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "x").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(error, match=fact):
        novel_names(text, ["dog"])


def test_names_come_from_a_split_file_without_a_photo(tmp_path: Path) -> None:
    names = ["River", "Highway", "Forest", "Sea_Lake"]
    rows = [[f"{name}/1.jpg", label, name] for label, name in enumerate(names)]
    write_split(tmp_path / "eurosat", "eurosat", {"train": rows, "val": [], "test": []}, photos=False)
    source = open_novel_source("dataset:eurosat", SourceOptions(data_root=tmp_path))
    novel = novel_names(source, ["dog"], new=["forest"])
    assert sorted(novel.names) == ["Highway", "River", "Sea Lake"]
    assert (novel.overlap, novel.source) == (1, "dataset:eurosat")


def test_imagenet_needs_nothing_and_the_seed_decides() -> None:
    first, again, other = (novel_names("dataset:imagenet", ["tench"], count=30, seed=s).names for s in (1, 1, 2))
    assert first == again != other
    assert len(novel_names("dataset:imagenet", ["tench"], count=2000).names) > 990


@pytest.mark.parametrize("sar", [{"teacher": "ensemble"}, {"rule": "union", "subset": 3}, {"rows": "novel"}])
def test_a_run_on_the_training_names_alone(tmp_path: Path, sar: dict[str, object]) -> None:
    config = dataclasses.replace(write_blobs(tmp_path), novel="none", sections={"sar": sar})
    record = trainer.run(config, tmp_path / "run").record
    assert record["novel"] == {"source": "none", "count": 0, "overlap": 0}
    assert (record["history"][-1]["regulariser"] > 0) is (sar != {"rows": "novel"})
