"""``sar-train`` as people type it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.problems import feature_set
from support.tiny import VIT, register

from sar_infer.bundle.manifest import Scores
from sar_infer.pages import page
from sar_infer.storage.files import locked
from sar_train.api import TrainedRun
from sar_train.cli.train import main, table, warn_statistics_below
from sar_train.data import progress
from sar_train.data.feature_file import load_features, save_features
from sar_train.training import checkpoint

FILES = ["evaluation.html", "fitted_statistics.safetensors", "prompts.safetensors", "record.json"]
WHOLE = ("--backbone", VIT, "--pretrained", "random", "--epochs", "2", "--learning-rate", "0.005")
TINY = (*WHOLE, "--quick")


@pytest.fixture(autouse=True)
def _tiny() -> None:
    register()


@pytest.fixture
def novel(tmp_path: Path) -> str:
    path = tmp_path / "novel.txt"
    path.write_text("fox\nboat\nlamp\n")
    return str(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of five plain photos each."""
    folder = tmp_path / "photos"
    for name, colour in (("red_thing", (200, 30, 30)), ("green thing", (30, 200, 30)), ("blue thing", (30, 30, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (40 + i, 40), tuple(c + 4 * i for c in colour)).save(folder / name / f"{i}.png")
    return folder


def sar_train(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result: Result, words: str) -> None:
    """Exit code 2 and one line on stderr that holds the words; no traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert words in lines[-1]
    assert lines[-1].startswith("Error: ")


def test_a_folder_of_photos(photos: Path, novel: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = sar_train(photos, *TINY, "--epochs", "3", "--shots", "3", "--views", "2", "--novel", novel, "--out", out)
    assert result.exit_code == 0, result.output
    record = json.loads((out / "record.json").read_text())
    assert record["dataset"]["classes"] == ["blue thing", "green thing", "red_thing"]
    assert record["dataset"]["photos"] == 9
    assert record["metrics"]["new_accuracy"] is None
    assert record["config"]["protocol"] == "all"
    for words in ("zero-shot", "linear probe", "coop + sar", str(out)):
        assert words in result.stdout
    (second,) = (line for line in result.stderr.splitlines() if line.startswith("epoch 2/3 "))
    assert second.endswith(" s left")  # the first epoch warms up, and after the last nothing is left
    assert record["dataset"]["held_out"] == 6
    told = "scores are not calibrated: 6 held-out photos of the trained classes, 50 are needed"
    what = "hold out more with fewer --shots, or use sar-bank calibrate later (docs/confidence.md)"
    assert result.stderr.splitlines()[-1] == f"Warning: {told}; {what}"


def test_photos_that_changed_since_an_earlier_run_are_a_plain_warning(photos: Path, tmp_path: Path) -> None:
    command = (photos, *WHOLE, "--no-sar", "--no-statistics", "--shots", "2", "--views", "1", "--quiet")
    assert "earlier run" not in sar_train(*command, "--out", tmp_path / "one").stderr
    (photos / "red_thing" / "0.png").unlink()
    lines = sar_train(*command, "--out", tmp_path / "two").stderr.splitlines()
    (line,) = [line for line in lines if "earlier run" in line]
    assert line.startswith("Warning: photos: its photos are not those of an earlier run (15 then, 14 now)")


def test_one_photo_of_each_class_leaves_none_to_test_on(photos: Path, tmp_path: Path) -> None:
    for path in photos.glob("*/[1-9].png"):
        path.unlink()
    result = sar_train(photos, *TINY, "--no-sar", "--views", "1", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "no photo is left to test on; give each class two photos or more" in result.stdout
    assert "zero-shot" not in result.stdout  # no table of dashes


def test_advice_fits_the_photos(photos: Path, tmp_path: Path) -> None:
    for name in ("grey thing", "pale thing"):
        shutil.copytree(photos / "red_thing", photos / name)
    command = (*WHOLE, "--no-sar", "--no-statistics", "--views", "1")
    result = sar_train(photos, *command, "--protocol", "pseudo", "--out", tmp_path / "run")
    assert "--protocol pseudo tests on validation photos, and there is none; use fewer --shots" in result.stdout
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / "apart" / split)
    result = sar_train(tmp_path / "apart", *command, "--out", tmp_path / "other")
    assert "25 held-out photos of the trained classes, 50 are needed; give more test photos, or" in result.stderr


def test_json_for_machines_and_quiet(photos: Path, novel: str, tmp_path: Path) -> None:
    result = sar_train(photos, *TINY, "--novel", novel, "--out", tmp_path / "run", "--format", "json", "--quiet")
    assert json.loads(result.stdout)["run"] == str(tmp_path / "run")
    assert "epoch" not in result.stderr


def test_encoding_photos_shows_how_far_it_is(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    command = (photos, *TINY, "--no-sar", "--shots", "3", "--save-features", tmp_path / "all.safetensors")
    result = sar_train(*command, "--out", tmp_path / "run")
    assert "encoding 9/9 train photos, about 0 s left" in result.stderr
    assert result.stderr.index("encoding") < result.stderr.index("zero-shot")
    again = sar_train(*command, "--out", tmp_path / "other" / "run", "--quiet")
    assert (again.exit_code, "encoding" in again.stderr) == (0, False)


def test_features_are_saved_and_read_in_place_of_photos(photos: Path, novel: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    assert sar_train(photos, *TINY, "--novel", novel, "--out", tmp_path / "a", "--save-features", file).exit_code == 0
    assert load_features(file).dataset.class_names == ("blue thing", "green thing", "red_thing")
    shutil.rmtree(photos)
    again = sar_train(file, *TINY, "--novel", novel, "--out", tmp_path / "b")
    assert again.exit_code == 0, again.output


def test_new_classes_have_their_column(novel: str, tmp_path: Path) -> None:
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    result = sar_train(tmp_path / "blobs.safetensors", *WHOLE, "--novel", novel, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    apart, _, one = result.stdout.partition("one ranking over base and new\n")
    assert "harmonic mean" in apart
    assert "epoch 2/2  of fold 2 of 2" in result.stderr
    found = json.loads((tmp_path / "run" / "record.json").read_text())["open"]
    shown = {line.split()[0]: [float(cell) for cell in line.split()[-3:]] for line in one.splitlines()[:2]}
    for label, key in (("zero-shot", "zero_shot"), ("coop", "metrics")):
        keys = ("base_accuracy", "new_accuracy", "harmonic_mean")
        assert shown[label] == pytest.approx([found[key]["images"][k] for k in keys], abs=0.05)


def test_the_closing_table_has_the_prompt_with_statistics(novel: str, tmp_path: Path) -> None:
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    arguments = (tmp_path / "blobs.safetensors", *WHOLE, "--novel", novel, "--protocol", "all")
    result = sar_train(*arguments, "--quick", "--prompt", "learned", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    rows = {line[:27].strip(): line[27:].strip() for line in result.stdout.splitlines()}
    for label, key in (("zero-shot", "zero_shot"), ("linear probe", "linear_probe"), ("coop + sar", "metrics")):
        assert float(rows[label]) == pytest.approx(record[key]["base_accuracy"], abs=0.051)
    found = record["other_metrics"]["statistics"]["base_accuracy"]
    assert float(rows["coop + sar + statistics"]) == pytest.approx(found, abs=0.051)
    assert int(rows["test photos"]) == sum(record["per_class_counts"]["base"].values())
    assert all(len(rows[label].partition(".")[2]) == 1 for label in ("zero-shot", "coop + sar"))
    assert "a class you add by its name is found in about" in result.stdout
    longest = record | {"config": record["config"] | {"method": "promptsrc"}, "settings": {"promptsrc": {}, "sar": {}}}
    lines = table(longest, tmp_path).splitlines()[1:7]
    assert lines[4].startswith("promptsrc + sar + statistics ")
    assert {len(line) for line in lines} == {27 + 15}
    plain = sar_train(*arguments, "--no-statistics", "--out", tmp_path / "plain")
    assert plain.exit_code == 0, plain.output
    assert "statistics" not in plain.stdout
    assert not (tmp_path / "plain" / "fitted_statistics.safetensors").exists()
    refused(sar_train(*arguments, "--prompt", "best", "--out", tmp_path / "other"), "'auto', 'learned', 'handcrafted'")


def test_a_result_below_zero_shot_is_said(novel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    worse = ("--backbone", VIT, "--pretrained", "random", "--epochs", "3", "--learning-rate", "80")
    result = sar_train(tmp_path / "blobs.safetensors", *worse, "--no-sar", "--out", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    fell = any(record["metrics"][k] < record["zero_shot"][k] for k in ("base_accuracy", "new_accuracy"))
    assert ("below zero-shot" in result.stderr) == fell


@pytest.mark.parametrize(
    ("alone", "zero_shot", "words"),
    [
        (
            90.0,
            70.0,
            "80.0 % of these test photos right, the prompt alone 90.0 %; to answer with that, use sar-train --no",
        ),
        (
            84.0,
            88.0,
            "80.0 % of these test photos right, zero-shot 88.0 %; to answer with that, use sar-export --handcrafted",
        ),
        (85.0, 85.0, None),
    ],
)
def test_statistics_far_below_another_way_are_said(
    alone: float, zero_shot: float, words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"metrics": {"base_accuracy": alone}, "statistics": {}}
    warn_statistics_below(TrainedRun(Path(), Scores(80.0, None, None), Scores(zero_shot, None, None), record))
    told = capsys.readouterr().err
    assert (words in told and told.count("\n") == 1) if words else not told


def test_settings_come_from_a_file_options_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("shots = 4\nseed = 3\n[sar]\ntau = 0.05\n")
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    options = ("--config", file, "--set", "sar.weight=2", "--no-resume", "--out", tmp_path / "run", "--novel", "words")
    result = CliRunner().invoke(
        main,
        [str(a) for a in (tmp_path / "blobs.safetensors", *TINY, *options)],
        env={"SAR_TRAIN_SHOTS": "8", "SAR_TRAIN_DEVICE": "auto", "SAR_OUT": "elsewhere", "SAR_EPOCHS": "no number"},
    )
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["config"]["shots"], record["seed"]) == (8, 3)
    assert (record["settings"]["sar"]["tau"], record["settings"]["sar"]["weight"]) == (0.05, 2)
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "other")], env={"SAR_TRAIN_METHOD": "coup"})
    refused(result, "did you mean 'coop'")


def test_methods_are_listed_for_people_and_for_machines() -> None:
    shown = sar_train("--list-methods")
    listed = json.loads(sar_train("--list-methods", "--format", "json").stdout)
    assert shown.exit_code == 0
    by_name = {entry["name"]: entry for entry in listed}
    expected = {"coop", "cocoop", "kgcoop", "prograd", "maple", "promptsrc", "tcp", "dept"}
    assert expected <= by_name.keys()
    assert all(name in shown.stdout and by_name[name]["paper"] in shown.stdout for name in expected)
    for name in expected:
        prompts_images = name in ("maple", "promptsrc")
        assert by_name[name]["towers"] == (["text", "image"] if prompts_images else ["text"])
        assert by_name[name]["features_cached"] is not prompts_images


def test_dept_is_put_on_another_method(photos: Path, tmp_path: Path) -> None:
    arguments = (photos, *TINY, "--no-sar", "--shots", "3", "--views", "1", "--method", "dept", "--on", "kgcoop")
    result = sar_train(*arguments, "--out", tmp_path / "run", "--format", "json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["settings"]["dept"]["on"] == "kgcoop"
    assert "knowledge" in record["history"][-1]
    assert record["other_metrics"]["text-branch"]["base_accuracy"] is not None
    refused(sar_train(*arguments[:-1], "prograd", "--out", tmp_path / "other"), "expected one of coop, kgcoop")
    refused(sar_train(photos, *TINY, "--on", "kgcoop", "--out", tmp_path / "other"), "settings for dept")


def test_a_method_for_both_towers_learns_from_photos_alone(photos: Path, novel: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = (*TINY, "--shots", "3", "--views", "2", "--novel", novel, "--method", "maple")
    result = sar_train(photos, *arguments, "--out", out, "--save-features", tmp_path / "f.safetensors")
    assert result.exit_code == 0, result.output
    assert json.loads((out / "record.json").read_text())["metrics"]["base_accuracy"] is not None
    refused(sar_train(tmp_path / "f.safetensors", *arguments, "--out", tmp_path / "o"), "needs the photos")


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_run_that_another_process_trains_is_left_alone(photos: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        refused(sar_train(photos, *TINY, "--out", tmp_path / "run"), "another sar-train is at this run; wait for it")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_that_the_same_command_goes_on(photos: Path, tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "run").exists():  # then it trains
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=interrupt, daemon=True)
    user.start()
    result = sar_train(photos, *TINY, "--no-sar", "--views", "1", "--epochs", "100000", "--out", tmp_path / "run")
    user.join()
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


def test_a_finished_run_is_kept_unless_asked(photos: Path, novel: str, tmp_path: Path) -> None:
    command = (photos, *TINY, "--novel", novel, "--out", tmp_path / "run")
    assert sar_train(*command).exit_code == 0
    refused(sar_train(*command), "finished run")
    assert sar_train(*command, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere/at/all",), "no such file or folder"),
        (("caltech102",), "caltech101"),
        (("demo", "--backbone", "sar-mimi"), "did you mean sar-mini"),
        (("demo", "--backbone", "ViT-B-16"), "needs --pretrained"),
        (("demo", "--method", "copo"), "did you mean 'coop'"),
        (("demo", "--set", "sar.taux=1"), "did you mean 'tau'"),
        (("demo", "--set", "tau=1"), "SECTION.KEY=VALUE"),
        (("demo", "--no-sar", "--sar-weight", "3"), "--no-sar (sar = false) cannot be combined with settings of SAR"),
        (("demo", "--no-statistics", "--quick"), "only class statistics use them, and they are off"),
        (("demo", "--no-statistics", "--prompt", "learned"), "only class statistics use them, and they are off"),
        (("demo", "--no-sar", "--set", "sar.tau=1"), "--no-sar (sar = false) cannot be combined with settings of SAR"),
        (("demo", "--no-sar", "--novel-count", "9"), "only SAR has novel names, and it is off"),
        (("demo", "--method", "dept", "--novel", "wordnet"), "only SAR has novel names, and it is off"),
        (("demo", "--set", "maple.depth=9"), "maple"),
        (("demo", "--protocol", "both"), "is not one of 'auto', 'base-to-new'"),
        (("demo", "--seed", "-1"), "seed: expected 0 or more"),
        (("demo", "--config", "none.toml"), "none.toml"),
        (("demo", "--novel", "none.txt"), "none.txt"),
        (("demo", "--device", "cuda"), "cuda"),
        (("demo", "--template", "a photo"), "exactly one {}"),
        (("demo", "--save-features", "mine.npz"), "expected a file with the suffix .safetensors"),
        (("demo", "--save-features", f"{__file__}/mine.safetensors"), "choose another --save-features"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    refused(sar_train(*arguments, "--out", tmp_path / "run"), words)
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_photo_and_one_that_is_not_a_photo(photos: Path, novel: str, tmp_path: Path) -> None:
    (photos / "empty thing").mkdir()
    refused(sar_train(photos, *TINY, "--novel", novel, "--out", tmp_path / "run"), "empty thing")
    (photos / "empty thing" / "0.png").write_bytes(b"not a photo")
    refused(sar_train(photos, *TINY, "--novel", novel, "--out", tmp_path / "run"), "0.png")
    assert not (tmp_path / "run").exists()


def test_one_class_is_refused_before_anything_is_encoded(photos: Path, tmp_path: Path) -> None:
    for name in ("red_thing", "green thing"):
        shutil.rmtree(photos / name)
    result = sar_train(photos, *TINY, "--out", tmp_path / "run")
    refused(result, "one class only (blue thing); a classifier needs two or more")
    assert "encoding" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_out_folder_that_cannot_be_written(photos: Path, novel: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(sar_train(photos, *TINY, "--novel", novel, "--out", tmp_path / "file" / "run"), "file")


@pytest.mark.parametrize("out", ["photos", "photos/run", "photos/../photos/red_thing"])
def test_an_out_folder_among_the_photos(photos: Path, tmp_path: Path, out: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = sar_train(photos, *TINY, "--out", tmp_path / out)
    refused(result, f"--out lies in the folder of photos {photos}; name a folder outside of it")
    assert "encoding" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_fills_up_is_one_line_with_the_file(
    photos: Path, novel: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses further bytes of a file, as it does on a full disk; what came before is still there."""
    resource = pytest.importorskip("resource")
    arguments = (photos, *TINY, "--shots", "3", "--views", "2", "--novel", novel, "--out", tmp_path / "run", "-q")
    limits, signals = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    write = checkpoint.write_atomically

    def filling(path: Path, pieces: list[bytes]) -> None:
        if path.name == name:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        write(path, pieces)

    monkeypatch.setattr(checkpoint, "write_atomically", filling)
    monkeypatch.setattr(page, "write_atomically", filling)
    try:
        result = sar_train(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signals)
    refused(result, f"{tmp_path / 'run' / name}: cannot be written (File too large); free space")
    monkeypatch.undo()
    register()
    assert sar_train(*arguments).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES
