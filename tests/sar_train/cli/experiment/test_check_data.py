import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.coop import link_photos, write_class_names, write_imagenet
from support.photos import write_folder, write_photo

from sar_train.cli.experiment.check_data import check_data


def run(*arguments: object) -> Result:
    return CliRunner().invoke(check_data, [str(argument) for argument in arguments])


def test_usable(tmp_path: Path) -> None:
    result = run(write_folder(tmp_path / "own", {"a": 20, "b": 20}))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2:4] == [
        "dataset   classes      train      val     test  decoded  state",
        "own             2         32        4        4       40  ok",
    ]
    assert result.stdout.endswith("all 1 usable\n")


def test_problems_and_how_to_mend_them(tmp_path: Path) -> None:
    folder = write_imagenet(tmp_path, val=0)
    link_photos(folder / "images/val", [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 4)])
    write_class_names(folder, [f"n{i:08}" for i in range(1, 999)])
    result = run(tmp_path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    text = " ".join(result.stdout.split())
    assert "imagenet - - - - 0 ERROR" in text
    assert "expected 1000 classes sorted by id, got 998 fix: get the file as CoOp's DATASETS.md" in text
    assert "3 photos lie directly in it and 0 class folders fix:" in text
    assert "move each photo into the folder of its class" in text
    assert "not there: caltech101, oxford_pets" in text
    assert lines[-1] == "1 of 1 with problems: imagenet"
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 120


def test_json(tmp_path: Path) -> None:
    write_folder(tmp_path / "own", {"a": 20})
    write_photo(tmp_path / "own/a/x.png").write_bytes(b"")
    result = run(tmp_path / "own", "--format", "json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["usable"] is False
    (folder,) = content["datasets"]
    assert (folder["name"], folder["state"], folder["classes"], folder["published"]) == ("own", "error", 1, None)
    assert sum(folder["photos"].values()) == 21
    assert folder["findings"][-1]["severity"] == "error"
    assert "no bytes" in folder["findings"][-1]["what"]
    assert folder["findings"][-1]["mend"]
    eurosat = json.loads(run(tmp_path, "--dataset", "eurosat", "--format", "json").stdout)["datasets"][0]
    assert eurosat["published"] == {"classes": 10, "train": 13500, "val": 5400, "test": 8100}


@pytest.mark.parametrize("arguments", [("none",), (".", "--dataset", "foo")])
def test_nothing_to_check(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_odd_names_are_escaped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own\x1b[31m", {"a": 20})
    (folder / "a" / "bad\udcff.png").write_bytes(b"")
    for form in ("text", "json"):
        result = run(folder, "--format", form)
        assert result.exit_code == 1, result.exception
        assert "\x1b" not in result.stdout
        assert "udcff" in result.stdout
