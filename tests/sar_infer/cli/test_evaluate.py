"""``sar-bank evaluate`` and ``sar-classify --evaluate``, beside what ``sar-classify`` answers for each photo."""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bank_commands import BANK, COLOURS, Command, paint_folders

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as sar_classify

run, classify = Command(main), Command(sar_classify)
paint = functools.partial(paint_folders, spread=60)


@pytest.fixture
def bank(here: Path) -> Path:
    run("add", BANK, "--photos", paint("known", 3, seed=1))
    return BANK


def test_it_counts_what_classify_answers(bank: Path) -> None:
    held = paint("held", 9, seed=2)
    content = run.report("evaluate", bank, "--photos", held)
    paths = [str(path) for path in sorted(Path(held).rglob("*.png"))]
    lines = classify(*paths, "--bank", bank, "--format", "jsonl", "--top-k", 5).stdout.splitlines()
    answers = {result["image"]: result["predictions"] for result in map(json.loads, lines)}
    right = [path for path in paths if answers[path][0]["label"] == Path(path).parent.name]
    assert (content["accuracy"]["count"], content["accuracy"]["of"]) == (len(right), 36)
    assert 0 < len(right) < 36  # else the rest shows nothing
    for answer in content["answers"]:
        predictions = answers[answer["image"]]
        assert (answer["answer"], answer["score"]) == (predictions[0]["label"], pytest.approx(predictions[0]["score"]))
        ranks = [rank for rank, p in enumerate(predictions, 1) if p["label"] == answer["label"]]
        assert [answer["rank"]] == (ranks or [None])
    assert content["calibration"]["mean_score"] == pytest.approx(np.mean([p[0]["score"] for p in answers.values()]))
    pairs = {(pair["label"], pair["answer"]): pair["count"] for pair in content["confused"]}
    mistakes = [(Path(path).parent.name, answers[path][0]["label"]) for path in paths if path not in right]
    assert pairs == {pair: mistakes.count(pair) for pair in mistakes}
    Path("list.csv").write_text("".join(["class,photo\n", *(f"{Path(path).parent.name},{path}\n" for path in paths)]))
    assert run.report("evaluate", bank, "--photos", "list.csv")["accuracy"] == content["accuracy"]
    same = classify("held", "--bank", bank, "--evaluate", "--format", "json")
    assert json.loads(same.stdout)["answers"] == content["answers"]
    reds = [path for path in right if Path(path).parent.name == "red"]
    respelled = Classifier(os.environ["SAR_BUNDLE"], bank=bank).evaluate({"Red": reds})
    assert (respelled.confused, [one.name for one in respelled.per_class]) == ((), ["red"])


def test_photos_that_were_learned_come_twice_or_cannot_be_read_are_left_out(bank: Path) -> None:
    held = Path(paint("held", 4, seed=3))
    shutil.copy("known/red/0.png", held / "red" / "learned.png")
    Image.open("known/blue/1.png").save(held / "green" / "learned of another class.bmp")
    shutil.copy(held / "blue" / "0.png", held / "blue" / "again.png")
    (held / "iris" / "broken.jpg").write_bytes(b"no photo")
    result = run("evaluate", bank, "--photos", held, "--format", "json", code=1)
    content = json.loads(result.stdout)
    assert sum(one["accuracy"]["of"] for one in content["per_class"]) == 16
    left_out = {Path(item["image"]).name: item["kind"] for item in content["left_out"]}
    learned = dict.fromkeys(["learned.png", "learned of another class.bmp"], "learned")
    assert left_out == {**learned, "again.png": "repeated", "broken.jpg": "unreadable"}
    assert "Warning: held/iris/broken.jpg: not an image" in result.stderr
    assert "left out 2 photos, such as held/green/learned of another class.bmp of 'green': the classes" in result.stderr
    assert "a bundle does not record which photos it was trained on" in result.stderr


def test_the_photos_of_training_are_mentioned_for_classes_of_the_bundle(bank: Path) -> None:
    held, note = paint("held", 2, seed=3), "a bundle does not record which photos it was trained on"
    run("create", "own.safetensors", "--photos", "known")
    assert note not in run("evaluate", "own.safetensors", "--photos", held).stderr
    assert note not in classify(held, "--examples", "known", "--only", "--evaluate").stderr
    assert note not in run("evaluate", bank, "--photos", paint("added", 2, seed=3, names=("iris",))).stderr
    for arguments in ((held, "--bank", bank), (held,)):
        assert note in classify(*arguments, "--evaluate").stderr


def test_photos_of_other_classes_count_as_unknown_ones(bank: Path) -> None:
    run("calibrate", bank, "--photos", paint("calibrating", 20, seed=4))
    run("set", bank, "blue", "--alias", "azure")
    held = Path(paint("held", 6, seed=5, names=("red", "blue", "mud", "iriss")))
    (held / "blue").rename(held / "azure")
    result = run("evaluate", bank, "--photos", held, "--format", "json")
    content = json.loads(result.stdout)
    assert {one["name"]: one["accuracy"]["of"] for one in content["per_class"]} == {"red": 6, "blue": 6}
    unknowns = content["unknowns"]
    assert (unknowns["unknown_photos"], {*unknowns["unknown_classes"]}) == (12, {"mud", "iriss"})
    threshold = ClassBank.load(bank).calibration.unknown
    assert unknowns["threshold"] == threshold
    (line,) = (line for line in run("evaluate", bank, "--photos", held).stdout.splitlines() if "unknown  " in line)
    assert line.endswith(f" of these photos; threshold of its probability: {threshold:.3f}")
    for group, absent in (("known", False), ("unknown_images", True)):
        shares = [answer["unknown"] for answer in content["answers"] if answer["absent"] is absent]
        assert unknowns[group]["count"] == sum(share > threshold for share in shares)


def test_background_is_no_answer(bank: Path) -> None:
    run("set", bank, "iris", "--background")
    content = run.report("evaluate", bank, "--photos", paint("held", 5, seed=6))
    assert content["unknowns"]["unknown_classes"] == ["iris"]
    assert all(answer["answer"] != "iris" for answer in content["answers"])


def test_people_get_lines_and_a_page(bank: Path) -> None:
    result = run("evaluate", bank, "--photos", paint("held", 5, seed=9), "--html", "page.html")
    headings = ("accuracy  ", "confused most", "matrix: a row for each class", "page          page.html")
    assert all(heading in result.stdout for heading in headings)
    page = Path("page.html").read_text("utf-8")
    assert "Evaluation of mine.safetensors" in page
    odd = bank.rename(os.fsdecode(b"\xff.safetensors"))
    assert run("evaluate", odd, "--photos", "held", "--html", "odd.html").exit_code == 0
    assert r"Evaluation of \udcff.safetensors" in Path("odd.html").read_text("utf-8")
    assert "data:image/jpeg;base64," in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--photos", "nowhere"), "nowhere: no such file or folder"),
        (("--photos", "held", "--html", "none/page.html"), "none/page.html: expected a file to write, in a folder"),
        (("--photos", "strange"), "none of the labels ('mud') is a class to choose from; name folders like classes"),
        (("--photos", "known"), "no photo is left: the classes have learned from all of them; give others"),
        (("--photos", "broken"), "no photo can be read: broken/red/x.jpg: not an image"),
    ],
)
def test_folders_that_cannot_be_evaluated(bank: Path, arguments: tuple[str, ...], message: str) -> None:
    paint("held", 1, seed=0)
    paint("strange", 1, seed=0, names=("mud",))
    Path("broken/red").mkdir(parents=True)
    Path("broken/red/x.jpg").write_bytes(b"no photo")
    result = run("evaluate", bank, *arguments, code=2)
    assert message in result.stderr
    assert not result.stdout
    assert result.stderr.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--html", "x.html"), "--html needs --evaluate"),
        (("--evaluate", "--format", "csv"), "--evaluate: expected --format text or json, got csv"),
        (("--evaluate", "--out", "answers"), "--evaluate and --out cannot be combined"),
    ],
)
def test_options_that_do_not_go_together(here: Path, options: tuple[str, ...], message: str) -> None:
    assert message in classify(paint("held", 1, seed=0), *options, code=2).stderr


def test_test_photos_in_the_wrong_folder_are_reported_and_refused_if_strict(bank: Path) -> None:
    held = paint("held", 9, seed=2)
    for name, colour in COLOURS.items():
        for path in Path(held, name).iterdir():
            Image.new("RGB", (32, 32), tuple(min(255, c + int(path.stem)) for c in colour)).save(path)
    arguments = (held, "--bank", bank, "--evaluate", "--html", "page.html")
    assert "page: " not in classify(*arguments, "--strict").stderr
    Image.new("RGB", (32, 32), (212, 64, 51)).save("held/blue/odd.png")
    result = classify(*arguments, "--format", "json")
    assert "1 of 37 photos looks like another class: blue/odd.png (like 'red'); page: page-labels.html" in result.stderr
    (issue,) = json.loads(result.stdout)["label_issues"]
    assert (issue["photo"], issue["label"], issue["suggested"]) == ("held/blue/odd.png", "blue", "red")
    assert Path("page-labels.html").is_file()
    refused = classify(*arguments, "--strict", code=2)
    assert refused.stdout == ""
    assert "Error: nothing was changed: --strict, and 1 of 37 photos" in refused.stderr
    assert "--strict needs --evaluate" in classify(held, "--strict", code=2).stderr


def pair_of(folder: Path, *names: str) -> Path:
    """A photo of classes side by side, each with noise of its own."""
    generator = np.random.default_rng(len(names[0]))
    noise = [np.array(COLOURS[name]) + generator.normal(0, 8, (32, 32, 3)) for name in names]
    path = folder / f"{'-'.join(names)}.png"
    Image.fromarray(np.clip(np.concatenate(noise, 1), 0, 255).astype(np.uint8)).save(path)
    return path


def test_several_are_those_of_classify_and_the_labels_those_of_a_list(here: Path) -> None:
    bank = run("create", "fitted.safetensors", "--photos", paint("known", 4, seed=1)) and "fitted.safetensors"
    pairs = [("red", "green"), ("blue", "iris"), ("green", "iris")]
    photos = [pair_of(here, *pair) for pair in pairs]
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(here / "none.png")
    Path("labels.csv").write_text(
        "".join(["path,labels\n", *(f"{'-'.join(p)}.png,{'|'.join(p)}\n" for p in pairs), "none.png,\n"])
    )
    rows = [{"path": f"{'-'.join(pair)}.png", "labels": [*pair, "owl"]} for pair in pairs]
    Path("labels.json").write_text(json.dumps([*rows, {"path": "none.png", "labels": ""}]))
    words = ("--several", "--format", "json", "--html", "page.html")
    lists = ("labels.csv", "labels.json")
    content, other = (json.loads(run("evaluate", bank, "--photos", name, *words).stdout) for name in lists)
    paths = [*map(str, photos), "none.png"]
    lines = classify(*paths, "--bank", bank, "--several", "--format", "jsonl").stdout.splitlines()
    answers = [{one["label"] for one in json.loads(line)["labels"]} for line in lines]
    assert [{one["label"] for one in answer["answers"]} for answer in content["answers"]] == answers
    right = sum(len(answer & {*pair}) for answer, pair in zip(answers, pairs, strict=False))
    assert right > 0
    assert (content["recall"]["count"], content["recall"]["of"]) == (right, 6)
    assert (content["precision"]["count"], content["precision"]["of"]) == (right, sum(map(len, answers)))
    assert (content["empty"]["count"], content["empty"]["of"]) == (int(not answers[-1]), 1)
    shown = {one["name"]: one["recall"]["of"] for one in content["per_class"]}
    assert shown == {"red": 1, "green": 2, "blue": 1, "iris": 2}
    assert other["other_labels"] == ["owl"]
    assert {**other, "other_labels": [], "inputs": content["inputs"]} == content
    assert "mean_average_precision" in Path("page.html").read_text("utf-8")


def test_a_photo_in_two_folders_has_both_labels_and_learned_ones_are_left_out(here: Path) -> None:
    bank = run("create", "fitted.safetensors", "--photos", paint("known", 4, seed=1)) and "fitted.safetensors"
    photo = pair_of(here, "red", "green")
    for name in ("red", "green"):
        Path("held", name).mkdir(parents=True)
        shutil.copy(photo, Path("held", name, "photo.png"))
    shutil.copy(Path("known", "red", "0.png"), Path("held", "red", "0.png"))
    content = run.report("evaluate", bank, "--photos", "held", "--several")
    assert [answer["labels"] for answer in content["answers"]] == [["green", "red"]]
    assert [item["kind"] for item in content["left_out"]] == ["learned"]
    Path("owl.csv").write_text(f"path,labels\n{photo.name},owl\n")
    refused = run("evaluate", bank, "--photos", "owl.csv", "--several", code=2)
    assert "no photo shows one of the classes" in refused.stderr


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("x.csv", "photo,labels\na.png,red\n", "no column 'path'"),
        ("x.csv", "path;labels\na.png;red\n", "no column 'path', but ['path;labels']"),
        ("x.csv", "path,labels\na.png,red,green\n", "'a.png' has labels in columns of their own; put | between"),
        ("x.csv", "path,labels\na.png,red\n", "'a.png' is no file"),
        ("x.json", "[1]", "expected a list with path and labels"),
        ("x.json", "{", "expected a list with path and labels"),
        ("y.csv", None, "No such file"),
    ],
)
def test_a_list_that_is_not_understood_is_refused(name: str, text: str | None, reason: str, bank: Path) -> None:
    if text is not None:
        Path(name).write_text(text)
    assert reason in run("evaluate", bank, "--photos", name, "--several", code=2).stderr


def test_the_curve_ends_with_the_accuracy_of_the_evaluation(here: Path) -> None:
    run("create", BANK, "--photos", paint("known", 4, seed=1))
    words = ("evaluate", BANK, "--photos", paint("held", 9, seed=2), "--curve")
    content = run.report(*words)
    points = content["photo_curve"]["points"]
    assert [point["photos"] for point in points] == [0, 1, 2, 4]
    assert points[-1]["accuracy"] == content["accuracy"]
    assert "  8 photos   about " in run(*words).stdout
    run("create", "names.safetensors", "--classes", "red,green,blue,iris")
    assert "--curve needs photos" in run("evaluate", "names.safetensors", *words[2:], code=2).stderr
