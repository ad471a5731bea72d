"""``sar-experiment novel-names`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.photos import write_folder

from sar_train.cli.experiment.novel_names import novel_names
from sar_train.data.class_names import read_classes
from sar_train.novel_names import open_novel_source


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("SAR_LLM_URL", "SAR_LLM_MODEL", "SAR_LLM_KEY", "SAR_EXPERIMENT_NOVEL_NAMES_SOURCE", "SAR_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(novel_names, [str(a) for a in arguments], env=env)


def refused(result: Result, words: str) -> None:
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    (*_, line) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert words in line


def test_names_on_standard_output_and_counts_on_standard_error() -> None:
    result = run("demo", "--count", 20)
    assert result.exit_code == 0, result.output
    names = result.stdout.splitlines()
    assert len(names) == len(set(names)) == 20
    assert "caltech101: 50 trained classes, 20 novel names from wordnet\n" in result.stderr
    classes = {name.lower() for name in read_classes("demo").class_names}
    assert not {name.lower().replace(" ", "_") for name in names} & classes


def test_names_that_the_run_is_judged_on() -> None:
    new = read_classes("demo").class_names[50:]
    Path("names.txt").write_text("\n".join([*new[:3], "some thing"]))
    fewer = run("demo", "--source", "names.txt")
    assert fewer.stdout == "some thing\n"
    assert "1 novel names from names.txt; 3 names of new classes that are evaluated left out" in fewer.stderr
    whole = run("demo", "--source", "names.txt", "--keep-eval-names")
    assert len(whole.stdout.splitlines()) == 4
    assert "3 names of new classes that are evaluated kept among them" in whole.stderr


def test_a_file_that_training_reads() -> None:
    result = run("demo", "--source", "words", "--count", 5, "--out", "names.txt")
    assert result.stdout == ""
    shown = run("demo", "--source", "names.txt")
    assert shown.stdout == run("demo", "--source", "words", "--count", 5).stdout
    assert Path("names.txt").read_text().startswith("# caltech101, seed 1: 5 novel names from words\n")
    assert open_novel_source("names.txt").form == "FILE"


def test_json_for_machines() -> None:
    content = json.loads(run("demo", "--source", "dataset:imagenet", "--count", 3, "--format", "json").stdout)
    assert content.keys() == {"dataset", "protocol", "base", "new", "source", "count", "overlap", "names"}
    assert (len(content["base"]), len(content["new"]), len(content["names"])) == (50, 50, 3)
    assert content["protocol"] == "base-to-new"


def test_the_request_is_shown_without_any_endpoint() -> None:
    result = run("demo", "--show-request", "--count", 250, "--source", "llm")
    assert result.exit_code == 0, result.output
    assert "List 250 further class names" in result.stdout
    data = read_classes("demo")
    lines = result.stdout.splitlines()
    assert all(name.replace("_", " ") in lines for name in data.class_names[:50])
    assert not {name.replace("_", " ") for name in data.class_names[50:]} & set(lines)
    assert "altech" not in result.stdout


def test_a_folder_of_photos_has_no_new_names() -> None:
    write_folder(Path("photos"), {"golden_retriever": 2, "teapot": 2})
    result = run("photos", "--source", "wordnet:2", "--count", 4)
    assert "photos: 2 trained classes, 4 novel names from wordnet:2\n" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "nowhere: no such file, folder or dataset"),
        (("eurosat",), "give with --data-root"),
        (("demo", "--source", "wordnt"), "did you mean wordnet?"),
        (("demo", "--source", "llm"), "need --llm-url (SAR_LLM_URL) and --llm-model (SAR_LLM_MODEL)"),
        (("demo", "--source", "wordnet:0"), "expected a path length"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    refused(run(*arguments), words)
