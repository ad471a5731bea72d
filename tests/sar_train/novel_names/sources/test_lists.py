"""Sources that are a list of names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.blobs import write_blobs

from sar_train.errors import ConfigError, DataError
from sar_train.novel_names import NameRequest, SourceOptions, novel_names, open_novel_source
from sar_train.training import trainer


def test_lines_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("# animals\n\n  wolf \nred_fox\n")
    assert list(open_novel_source(str(tmp_path / "x")).candidates(NameRequest([], 5))) == ["wolf", "red_fox"]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "no name"),
        (b"# only\n", "no name"),
        (b"\xff\xfe", "UTF-8"),
        (b"a\0b", "binary"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, fact: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=fact):
        open_novel_source(str(tmp_path / "x")).candidates(NameRequest([], 5))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.txt"):
        open_novel_source(f"file:{tmp_path / 'none.txt'}")
    with pytest.raises(ConfigError, match="file: "):
        open_novel_source("file")
    (tmp_path / "x").write_text("wolf")
    source = open_novel_source(f"file:{tmp_path / 'x'}")
    (tmp_path / "x").unlink()  # after it was seen
    with pytest.raises(DataError, match=str(tmp_path / "x")):
        source.candidates(NameRequest([], 5))


def test_an_answer_is_cleaned(tmp_path: Path) -> None:
    (tmp_path / "chat.md").write_text("Sure! Here you are:\n\n1. **Wolf** - a dog\n2. Dog\n3. Cat\n")
    found = novel_names(f"answer:{tmp_path / 'chat.md'}", ["dog"], new=["cat"])
    assert (found.names, found.overlap) == (("wolf",), 1)


def test_what_is_no_answer(tmp_path: Path) -> None:
    for text in ("answer", "answer:", f"answer:{tmp_path / 'none.md'}"):
        with pytest.raises(ConfigError, match="answer:FILE"):
            open_novel_source(text)
    (tmp_path / "chat.md").write_text("Sorry, I cannot.\n")
    with pytest.raises(DataError, match="chat.md"):
        novel_names(f"answer:{tmp_path / 'chat.md'}", ["dog"])


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


@pytest.mark.parametrize(
    "sar", [{}, {"teacher": "ensemble"}, {"rule": "union", "subset": 3}, {"rows": "novel"}, {"anchor": 1.0}]
)
def test_a_run_on_the_training_names_alone(tmp_path: Path, sar: dict[str, object]) -> None:
    config = dataclasses.replace(write_blobs(tmp_path), novel="none", sections={"sar": sar})
    record = trainer.run(config, tmp_path / "run").record
    assert record["novel"] == {"source": "none", "count": 0, "overlap": 0}
    assert "regulariser" in record["history"][-1]
    assert (record["history"][-1]["regulariser"] > 0) is (sar != {"rows": "novel"})


def test_class_specific_contexts_need_no_novel_names(tmp_path: Path) -> None:
    own = {"coop": {"class_specific": True}}
    config = dataclasses.replace(write_blobs(tmp_path), novel="none", protocol="all", sections=own)
    run = trainer.run(config, tmp_path / "run")
    assert run.tensors["context"].shape[0] == 8
    assert "regulariser" in run.record["history"][-1]
