"""``sar-train --plan`` beside the run that it foretells, and the page that the run leaves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.problems import feature_set
from support.training_command import PLAIN, TINY, WHOLE, coloured_photos, refused, sar_train

from sar_train.data.feature_file import save_features


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of six photos each, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return coloured_photos(Path("photos"), "red thing", "IMG_2041.jpg", "blue thing", count=6)


def plan(*arguments: object) -> Any:
    return json.loads(sar_train(*arguments, "--plan", "--format", "json").stdout)


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def test_it_foretells_the_run_and_writes_nothing(photos: Path) -> None:
    before = files()
    command = (photos, *TINY, "--set", "views=2", "--shots", "3", "--set", "novel-count=20")
    content = plan(*command)
    assert files() == before
    assert content["run"] == "runs/photos-coop-sar-s1"
    sar_train(*command)
    record = json.loads(Path(content["run"], "record.json").read_text("utf-8"))
    classes = {one["name"]: one for one in content["classes"]}
    assert [*classes] == record["dataset"]["classes"]
    assert sum(one["learned"] for one in classes.values()) == record["dataset"]["photos"] == 9
    assert {name: one["test"] for name, one in classes.items()} == record["per_class_counts"]["base"]
    assert sum(one["test"] for one in classes.values()) == record["dataset"]["held_out"]
    assert content["split"] == record["dataset"]["split_origin"] == "ours"
    assert (content["protocol"], content["template"]) == (record["config"]["protocol"], record["config"]["template"])
    assert content["settings"] == record["settings"]
    assert content["novel"]["count"] == record["novel"]["count"]
    assert content["schedule"].items() <= record["config"]["schedule"].items()
    assert content["expected"]["steps"] == 2 * max(1, 9 // content["schedule"]["batch_size"])
    assert content["expected"]["photos"] == 9 * 2 + record["dataset"]["held_out"]
    assert content["expected"]["seconds"] > 0
    assert (content["expected"]["halves"], content["expected"]["certain"]) == (0, True)  # --prompt learned


def test_it_says_what_is_odd(photos: Path) -> None:
    shutil.copy(photos / "red thing" / "0.png", photos / "red thing" / "copy.png")
    shutil.copy(photos / "red thing" / "1.png", photos / "blue thing" / "copy.png")
    for path in (photos / "IMG_2041.jpg").glob("[4-5].png"):
        path.write_bytes(b"no photo")
    content = plan(photos, *TINY, "--no-sar", "--shots", "3")
    said = "\n".join(finding["what"] for finding in content["checked"]["findings"])
    assert f"1 photo lies in two classes, the first: {photos}/blue thing/copy.png and {photos}/red thing/1.png" in said
    assert "2 of 20 photos cannot be read" in said
    assert content["names"] == []
    assert content["novel"] is None


def test_text_for_people(photos: Path) -> None:
    text = sar_train(photos, *TINY, "--set", "views=2", "--shots", "3", "--set", "novel-count=20", "--plan").stdout
    assert "data          photos: a folder for each class" in text
    assert re.search(r"^blue thing +3 +1 +2 +3$", text, re.MULTILINE)
    assert re.search(r"^time +about \d+ s, as busy as this machine is now", text, re.MULTILINE)
    assert text.endswith("nothing was trained; without --plan the run goes to runs/photos-coop-sar-s1\n")


def test_prompts_in_the_image_tower_and_feature_files(photos: Path) -> None:
    content = plan(photos, *TINY, "--method", "maple", "--batch-size", "2", "--shots", "3")
    assert content["method"] == "maple + sar"
    assert content["expected"]["training"] > 0
    demo = plan("demo", "--epochs", "1", "--novel", "none", "--prompt", "learned")
    assert (demo["checked"], demo["expected"]["encoding"], demo["protocol"]) == (None, None, "base-to-new")
    assert sum(one["new"] for one in demo["classes"]) == 50


def test_it_counts_the_trainings_that_follow(tmp_path: Path) -> None:
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    command = (tmp_path / "blobs.safetensors", *WHOLE, "--no-sar", "--protocol", "all")
    for prompt, halves, whole, certain in (("auto", 1, 1, 0), ("learned", 0, 1, 1), ("handcrafted", 0, 0, 1)):
        expected = plan(*command, "--prompt", prompt)["expected"]
        assert (expected["halves"] > 0, expected["training"] > 0) == (bool(halves), bool(whole))
        assert expected["certain"] is bool(certain)
        assert expected["seconds"] == expected["halves"] + expected["training"] * certain
    assert re.search(r"about \d+ s, or \d+ s if the\s+learned", sar_train(*command, "--plan").stdout)
    assert plan(*command[:-1], "base-to-new")["expected"]["certain"]


def test_what_cannot_be_used_is_refused_at_once(photos: Path) -> None:
    Path("runs").write_text("a file")
    assert "expected a folder" in refused(photos, *TINY, "--plan")
    Path("runs").unlink()
    assert "no such folder" in refused("nowhere", "--plan")
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no photo")
    assert "none of the photos to learn from can be read" in refused(photos, *TINY, "--plan")


def page_data(path: Path) -> Any:
    text = path.read_text("utf-8")
    (content,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(content)


@pytest.mark.parametrize("statistics", [True, False])
def test_a_run_leaves_the_page_of_its_test_photos(photos: Path, statistics: bool) -> None:
    flag = "--statistics" if statistics else "--no-statistics"
    options = TINY if statistics else TINY[:-2]
    result = sar_train(photos, *options, "--no-sar", "--shots", "3", flag, "--out", "run")
    assert "what is confused with what: run/evaluation.html" in result.stdout
    said = "the class model takes the learned prompt: --prompt learned"
    assert (said in " ".join(result.stdout.split())) is statistics
    record = json.loads(Path("run/record.json").read_text("utf-8"))
    metrics = record["other_metrics"]["statistics"] if statistics else record["metrics"]
    data = page_data(Path("run/evaluation.html"))
    assert 100 * data["accuracy"]["share"] == pytest.approx(metrics["base_accuracy"])
    assert {one["name"]: one["accuracy"]["of"] for one in data["per_class"]} == record["per_class_counts"]["base"]
    confused = record["other_confused"]["statistics"]["base"] if statistics else record["confused"]["base"]
    assert [(pair["label"], pair["answer"], pair["count"]) for pair in data["confused"]] == [
        (pair["true"], pair["predicted"], pair["count"]) for pair in confused
    ][: len(data["confused"])]
    assert all(photo["picture"].startswith("data:image/jpeg") for photo in data["photos"])


def test_a_run_on_features_has_a_page_without_pictures(tmp_path: Path) -> None:
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    output = sar_train(tmp_path / "blobs.safetensors", *PLAIN, "--out", tmp_path / "run", "--format", "json")
    content = json.loads(output.stdout)
    data = page_data(Path(content["page"]))
    assert 100 * data["accuracy"]["share"] == pytest.approx(content["metrics"]["base_accuracy"])
    assert data["photos"]
    assert all(photo["picture"] is None for photo in data["photos"])
    assert data["photos"][0]["image"].startswith("test photo ")
