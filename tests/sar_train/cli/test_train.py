"""``sar-train`` as people type it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from support.problems import feature_set
from support.training_command import PLAIN, TINY, coloured_photos, refused, sar_train

from sar_infer.bundle.manifest import Scores
from sar_infer.evaluation import html
from sar_infer.storage.files import locked
from sar_train.api import TrainedRun
from sar_train.cli.train import table, warnings_of
from sar_train.data import progress
from sar_train.data.feature_file import load_features, save_features
from sar_train.training import checkpoint

FILES = ["evaluation.html", "fitted_statistics.safetensors", "prompts.safetensors", "record.json"]


@pytest.fixture
def novel(tmp_path: Path) -> str:
    path = tmp_path / "novel.txt"
    path.write_text("fox\nboat\nlamp\n")
    return str(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of five plain photos each."""
    return coloured_photos(tmp_path / "photos", "red_thing", "green thing", "blue thing")


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """A feature file with a published split of eight classes."""
    save_features(feature_set(), tmp_path / "blobs.safetensors")
    return tmp_path / "blobs.safetensors"


def record_of(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "record.json").read_text())
    return record


def test_a_folder_of_photos(photos: Path, novel: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = sar_train(
        photos, *TINY, "--epochs", "3", "--shots", "3", "--set", "views=2", "--novel", novel, "--out", out
    )
    record = record_of(out)
    assert record["dataset"]["classes"] == ["blue thing", "green thing", "red_thing"]
    assert record["dataset"]["photos"] == 9
    assert record["metrics"]["new_accuracy"] is None
    assert record["config"]["protocol"] == "all"
    for words in ("zero-shot", "linear probe", "coop + sar", str(out)):
        assert words in result.stdout
    (second,) = (line for line in result.stderr.splitlines() if line.startswith("epoch 2/3 "))
    assert second.endswith(" s left")  # the first epoch warms up, and after the last nothing is left
    assert record["dataset"]["held_out"] == 3


def test_features_are_saved_and_read_in_place_of_photos(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    file = tmp_path / "mine.safetensors"
    result = sar_train(photos, *PLAIN, "--shots", "3", "--out", tmp_path / "run", "--save-features", file)
    assert "encoding 9/9 train photos, about 0 s left" in result.stderr
    assert result.stderr.index("encoding") < result.stderr.index("zero-shot")
    assert load_features(file).dataset.class_names == ("blue thing", "green thing", "red_thing")
    shutil.rmtree(photos)
    assert "encoding" not in sar_train(file, *PLAIN, "--out", tmp_path / "other").stderr


def test_the_closing_table_has_the_prompt_with_statistics(blobs: Path, novel: str, tmp_path: Path) -> None:
    arguments = (blobs, *TINY, "--novel", novel, "--protocol", "all", "--prompt", "learned")
    result = sar_train(*arguments, "--out", tmp_path / "run")
    record = record_of(tmp_path / "run")
    rows = {line[:27].strip(): line[27:].strip() for line in result.stdout.splitlines()}
    for label, key in (("zero-shot", "zero_shot"), ("linear probe", "linear_probe"), ("coop + sar", "metrics")):
        assert float(rows[label]) == pytest.approx(record[key]["base_accuracy"], abs=0.051)
    with_statistics = record["other_metrics"]["statistics"]["base_accuracy"]
    assert float(rows["coop + sar + class model"]) == pytest.approx(with_statistics, abs=0.051)
    assert int(rows["test photos"]) == sum(record["per_class_counts"]["base"].values())
    assert all(len(rows[label].partition(".")[2]) == 1 for label in ("zero-shot", "coop + sar"))
    assert "of classes that you add" in " ".join(result.stdout.split())
    longest = record | {"config": record["config"] | {"method": "promptsrc"}, "settings": {"promptsrc": {}, "sar": {}}}
    lines = table(longest, tmp_path).splitlines()[1:7]
    assert lines[4].startswith("promptsrc + sar + class model ")
    assert {len(line) for line in lines} == {27 + 15}
    for accuracy, backbone, hint in [(60, "sar-mini", True), (95, "sar-mini", False), (60, "ViT-B-16", False)]:
        record["config"]["backbone"], record["statistics"]["expected"][-1]["trained"] = backbone, accuracy
        assert ("sar-mini is for trying out" in table(record, tmp_path)) is hint


def test_the_closing_table_has_the_row_switch_where_new_classes_are_tested(
    blobs: Path, novel: str, tmp_path: Path
) -> None:
    arguments = (blobs, *TINY, "--novel", novel, "--protocol", "base-to-new", "--prompt", "learned")
    result = sar_train(*arguments, "--out", tmp_path / "run")
    record = record_of(tmp_path / "run")
    apart, jointly = result.stdout.split("joint over base and new")
    for lines, ways in ((apart, record["other_metrics"]), (jointly, record["open"]["other_metrics"])):
        rows = {" ".join(line.split()[:-3]): line.split()[-3:] for line in lines.splitlines()}
        for label, way in (("switched", "switched"), ("class model, switched", "statistics-switched")):
            measures = ways[way] if lines is apart else ways[way]["images"]
            row = rows[f"- {label}"]
            assert list(map(float, row)) == pytest.approx(
                [measures[key] for key in ("base_accuracy", "new_accuracy", "harmonic_mean")], abs=0.051
            )
    assert record["other_metrics"]["switched"]["base_accuracy"] == record["metrics"]["base_accuracy"]
    assert record["other_metrics"]["switched"]["new_accuracy"] == record["zero_shot"]["new_accuracy"]


@pytest.mark.parametrize(
    ("alone", "zero_shot", "answer", "words"),
    [
        ((60, 50), (60.04, 49), None, []),
        ((60, None), (61, None), None, ["on the trained classes this prompt (60.0 %) is below zero-shot (61.0 %)"]),
        ((60, 50), (60, 52.5), None, ["on new classes this prompt (50.0 %) is below zero-shot (52.5 %)"]),
        ((85, None), (85, None), 80, []),
        (
            (90, None),
            (70, None),
            80,
            ["the class model gets 80.0 % of these test photos right, the prompt without it 90.0"],
        ),
        (
            (84, None),
            (88, None),
            80,
            [
                "on the trained classes this prompt (84.0 %) is below",
                "the class model gets 80.0 % of these test photos right, zero-shot 88.0 %; to answer with that, use "
                "sar-export --handcrafted",
            ],
        ),
    ],
)
def test_results_below_another_way_are_said(
    alone: tuple[float, float | None],
    zero_shot: tuple[float, float | None],
    answer: float | None,
    words: list[str],
) -> None:
    """With the accuracy of each way on trained and new classes; ``answer`` is that with class statistics."""
    keys = ("base_accuracy", "new_accuracy")
    record = {
        "metrics": dict(zip(keys, alone, strict=True)),
        "zero_shot": dict(zip(keys, zero_shot, strict=True)),
        "statistics": None if answer is None else {},
    }
    nothing = Scores(None, None, None)
    lines = [*warnings_of(TrainedRun(Path(), Scores(answer, None, None), nothing, record))]
    assert len(lines) == len(words)
    assert all(line.startswith(text) for line, text in zip(lines, words, strict=True))


def test_settings_come_from_a_file_options_and_the_environment(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.toml"
    file.write_text("shots = 4\nseed = 3\n[sar]\ntau = 0.05\n")
    for name, value in {"TRAIN_SHOTS": "8", "TRAIN_DEVICE": "auto", "OUT": "elsewhere", "EPOCHS": "no number"}.items():
        monkeypatch.setenv(f"SAR_{name}", value)
    options = ("--config", file, "--set", "sar.weight=2", "--no-resume", "--out", tmp_path / "run", "--novel", "words")
    sar_train(blobs, *TINY, *options)
    record = record_of(tmp_path / "run")
    assert (record["config"]["shots"], record["seed"]) == (8, 3)
    assert (record["settings"]["sar"]["tau"], record["settings"]["sar"]["weight"]) == (0.05, 2)
    monkeypatch.setenv("SAR_TRAIN_METHOD", "coup")
    assert "did you mean 'coop'" in refused("demo", "--out", tmp_path / "other")


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


def test_dept_is_put_on_another_method_and_told_to_machines(photos: Path, tmp_path: Path) -> None:
    arguments = (photos, *TINY, "--no-sar", "--shots", "3", "--set", "views=1", "--method", "dept", "--on", "kgcoop")
    result = sar_train(*arguments, "--out", tmp_path / "run", "--format", "json", "--quiet")
    record = json.loads(result.stdout)
    assert record["run"] == str(tmp_path / "run")
    assert "epoch" not in result.stderr
    assert record["settings"]["dept"]["on"] == "kgcoop"
    assert "knowledge" in record["history"][-1]
    assert record["other_metrics"]["text-branch"]["base_accuracy"] is not None
    assert "expected one of coop, kgcoop" in refused(*arguments[:-1], "prograd", "--out", tmp_path / "other")
    assert "settings for dept" in refused(photos, *TINY, "--on", "kgcoop", "--out", tmp_path / "other")


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_run_that_another_process_trains_is_left_alone(photos: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        line = refused(photos, *TINY, "--out", tmp_path / "run")
    assert "another sar-train is at this run; wait for it" in line
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_kept_unless_asked(photos: Path, tmp_path: Path) -> None:
    command = (photos, *PLAIN, "--out", tmp_path / "run")
    sar_train(*command)
    assert "finished run" in refused(*command)
    sar_train(*command, "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere/at/all",), "no such file or folder"),
        (("caltech102",), "caltech101"),
        (("demo", "--backbone", "sar-mimi"), "did you mean sar-mini"),
        (("demo", "--backbone", "ViT-B-16"), "needs --pretrained"),
        (("demo", "--method", "copo"), "did you mean 'coop'"),
        (("demo", "--set", "sar.taux=1"), "did you mean 'tau'"),
        (("demo", "--set", "tau=1"), "unknown key tau"),
        (
            ("demo", "--no-sar", "--set", "sar.weight=3"),
            "--no-sar (sar = false) cannot be combined with settings of SAR",
        ),
        (("demo", "--no-statistics", "--prompt", "learned"), "only the class model uses it, and it is off"),
        (("demo", "--no-sar", "--set", "novel-count=9"), "only SAR uses auxiliary names, and it is off"),
        (("demo", "--protocol", "both"), "is not one of 'auto', 'base-to-new'"),
        (("demo", "--prompt", "best"), "'auto', 'learned', 'handcrafted'"),
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
    assert words in refused(*arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_photo_and_one_that_is_not_a_photo(photos: Path, tmp_path: Path) -> None:
    (photos / "empty thing").mkdir()
    assert "empty thing" in refused(photos, *PLAIN, "--out", tmp_path / "run")
    (photos / "empty thing" / "0.png").write_bytes(b"not a photo")
    assert "0.png" in refused(photos, *PLAIN, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("out", ["photos/run", "photos/../photos/red_thing"])
def test_an_out_folder_among_the_photos(photos: Path, tmp_path: Path, out: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    line = refused(photos, *TINY, "--out", tmp_path / out)
    assert f"--out lies in the folder of photos {photos}; name a folder outside of it" in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", FILES[::3])
def test_a_disk_that_fills_up_is_one_line_with_the_file(
    photos: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses further bytes of a file, as it does on a full disk; what came before is still there."""
    resource = pytest.importorskip("resource")
    arguments = (photos, *TINY, "--no-sar", "--shots", "3", "--set", "views=1", "--out", tmp_path / "run", "-q")
    limits, signals = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    write = checkpoint.write_atomically

    def filling(path: Path, pieces: list[bytes]) -> None:
        if path.name == name:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        write(path, pieces)

    monkeypatch.setattr(checkpoint, "write_atomically", filling)
    monkeypatch.setattr(html, "write_atomically", filling)
    try:
        line = refused(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signals)
    assert f"{tmp_path / 'run' / name}: cannot be written (File too large); free space" in line
    monkeypatch.undo()
    sar_train(*arguments)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES
