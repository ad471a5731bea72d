"""Photos in the wrong folder as ``sar-train`` meets them: before it learns, in its plan, and left out by a list."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from support.training_command import PLAIN, coloured_photos, refused, sar_train

ODD = "photos/train/blue/odd.png"
COMMAND = ("photos", *PLAIN, "--shots", "16", "--out", "runs/x")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three classes of eight training photos and two test photos each, and one of another class in the last."""
    monkeypatch.chdir(tmp_path)
    coloured_photos(Path("photos/train"), "red", "green", "blue", count=8)
    coloured_photos(Path("photos/test"), "red", "green", "blue", count=12)
    for path in Path("photos/test").glob("*/[0-9].png"):
        path.unlink()
    Image.new("RGB", (40, 40), (210, 39, 40)).save(ODD)


def test_a_run_reports_them_before_it_learns_and_leaves_out_those_of_a_list() -> None:
    line = refused(*COMMAND, "--strict")
    assert "--strict, and 1 of 25 photos looks like another class: blue/odd.png (like 'red')" in line
    assert line.endswith("page: runs/x-labels.html")
    assert [path.name for path in Path("runs").iterdir() if not path.name.startswith(".")] == ["x-labels.html"]
    result = sar_train(*COMMAND, "--format", "json", "--quiet")
    assert "Warning: 1 of 25 photos looks like another class" in result.stderr
    (issue,) = json.loads(result.stdout)["label_issues"]
    assert (issue["photo"], issue["label"], issue["suggested"]) == (ODD, "blue", "red")
    Path("labels.csv").write_text(f"class,photo,action,to\nblue,{Path(ODD).resolve()},move,red\n")
    again = sar_train(*COMMAND, "--exclude", "labels.csv", "--strict", "--overwrite", "--format", "json")
    record = json.loads(again.stdout)
    assert (record["label_issues"], record["dataset"]["photos"]) == ([], 24)
    assert "left out 1 of 1 photos in labels.csv" in again.stderr
    assert record["config"]["exclude"] == "labels.csv"


def test_a_plan_shows_them_with_photos_that_are_in_two_places() -> None:
    shutil.copy("photos/train/red/1.png", "photos/train/green/copy.png")
    shutil.copy("photos/train/red/2.png", "photos/test/red/copy.png")
    result = sar_train(*COMMAND, "--plan", "--format", "json")
    content = json.loads(result.stdout)
    assert {issue["photo"] for issue in content["label_issues"]} == {ODD, "photos/train/green/copy.png"}
    assert "1 photo in two classes; 1 photo in training and test; page: runs/x-labels.html" in result.stderr
    (data,) = re.findall(r'id="data">(.*?)</script>', Path("runs/x-labels.html").read_text("utf-8"))
    page = json.loads(data)
    assert [{one["label"] for one in pair} for pair in page["twice"]] == [{"red", "green"}]
    assert [[one["name"] for one in pair] for pair in page["copies"]] == [["red/2.png", "red/copy.png"]]
    run = sar_train(*COMMAND)
    assert "1 photo in two classes; 1 photo in training and test; page: runs/x-labels.html" in run.stderr
    assert "labels        2 of 26 photos look like another class" in sar_train(*COMMAND[:-1], "runs/y", "--plan").stdout


@pytest.mark.parametrize("arguments", [("photos", "--exclude", "none.csv"), ("demo", "--exclude", "labels.csv")])
def test_a_list_that_cannot_be_used_is_one_line(arguments: tuple[str, ...]) -> None:
    Path("labels.csv").write_text(f"photo\n{ODD}\n")
    assert "--exclude" in refused(*arguments, "--no-sar", "--plan")
