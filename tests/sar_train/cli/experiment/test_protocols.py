"""``sar-experiment``'s training commands as people type them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.blobs import write_blobs
from support.jobs import here
from support.photos import needs_shared, write_folder
from support.tiny import VIT

from sar_train.cli.experiment import main
from sar_train.experiment import pools


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny backbone is registered in this process alone; `test_pools` has real processes."""
    monkeypatch.setattr(pools, "local", lambda workers, threads: here)


@pytest.fixture
def blobs(tmp_path: Path) -> tuple[str, ...]:
    """The options of a run of a second."""
    config = write_blobs(tmp_path)
    tiny = ("--backbone", VIT, "--pretrained", "random", "--epochs", "1", "--set", "sar.subset=4")
    return ("--novel", config.novel, *tiny, "--quiet")


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("[!.]*/*.json"))]


def test_base_to_new_runs_the_grid_and_skips_what_is_done(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    out, data = tmp_path / "out", tmp_path / "blobs.safetensors"
    words = ("base-to-new", "--datasets", data, "--methods", "coop,kgcoop", "--seeds", "1", "--out", out, *blobs)
    done = call(*words, "--format", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["results"]) == 4
    assert found["zero_shot"][0]["dataset"]["name"] == "blobs"
    names = sorted((content["name"], content["seed"]) for content in read(out))
    assert names == sorted((n + sar, 1) for n in ("coop", "kgcoop") for sar in ("", "+sar"))
    again = call(*words, "--format", "json", "--seeds", "1,2", "--methods", "coop")
    assert len(json.loads(again.stdout)["results"]) == 4
    assert sorted(content["seed"] for content in read(out)) == [1, 1, 1, 1, 2, 2]


def test_a_dry_run_lists_and_writes_nothing(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    words = ("few-shot", "--datasets", tmp_path / "blobs.safetensors", "--methods", "coop", "--out", out, *blobs)
    done = call(*words, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "30 runs, 30 to do" in done.stdout
    assert "coop+sar-8shots-s3" in done.stdout
    assert not out.exists()
    rows = json.loads(call(*words, "--dry-run", "--format", "json").stdout)
    assert len(rows) == 30
    assert not any(row["done"] for row in rows)


def test_a_config_file_sets_common_and_per_method_settings(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    config = tmp_path / "chosen.toml"
    config.write_text("[common]\nviews = 2\n[methods.coop.sar]\nweight = 2.5\n")
    out = tmp_path / "out"
    words = ("base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--methods", "coop,kgcoop", "--seeds", "1")
    done = call(*words, "--sar", "on", "--shots", "3", "--config", config, "--out", out, *blobs)
    assert done.exit_code == 0, done.output
    found = {content["config"]["method"]: content for content in read(out)}
    assert found["coop"]["settings"]["sar"]["weight"] == 2.5
    assert found["kgcoop"]["settings"]["sar"]["weight"] != 2.5
    assert {content["config"]["views"] for content in found.values()} == {2}
    assert {content["config"]["shots"] for content in found.values()} == {3}


def test_domains_are_trained_on_and_evaluated(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    classes = {"fox": 4, "boat": 4, "lamp": 4}
    for domain in ("photo", "sketch"):
        write_folder(tmp_path / "domains" / domain, classes)
    out = tmp_path / "out"
    words = ("domain-generalisation", "--data-root", tmp_path / "domains", "--source", "photo", "--targets", "sketch")
    done = call(*words, "--methods", "coop", "--seeds", "1", "--shots", "2", "--out", out, *blobs, "--novel", "words")
    assert done.exit_code == 0, done.output
    for content in read(out):
        assert content["protocol"] == "domain-generalisation"
        assert content["targets"]["sketch"]["photos"] == 12
        assert content["metrics"]["new_accuracy"] is None


def test_a_sweep_file_is_run(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        f'seeds = [1]\n[common]\ndata = "{tmp_path / "blobs.safetensors"}"\nprotocol = "base-to-new"\n'
        '[runs."no SAR"]\nsar = false\n[runs.weak]\nsar.weight = 0.01\n'
    )
    done = call("run", sweep, "--out", tmp_path / "out", "--only", "weak", *blobs)
    assert done.exit_code == 0, done.output
    assert [content["name"] for content in read(tmp_path / "out")] == ["weak"]
    done = call("run", sweep, "--out", tmp_path / "out", *blobs)
    assert sorted(content["name"] for content in read(tmp_path / "out")) == ["no SAR", "weak"]
    (written,) = (tmp_path / "out").rglob("weak*.toml")
    assert "1 of 1 runs are done" in call("run", written, "--out", tmp_path / "out", *blobs[:-1]).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("base-to-new", "--datasets", "demo", "--methods", "copo"), "did you mean"),
        (("base-to-new", "--datasets", "demo", "--seeds", "one"), "expected whole numbers"),
        (("base-to-new", "--datasets", "demo", "--seeds", "3-1"), "expected whole numbers"),
        (("base-to-new", "--datasets", "demo", "--seeds", "1-99999999999"), "a range of at most 1,000 numbers"),
        (("base-to-new", "--datasets", "demo", "--seeds", "9" * 5000), "expected whole numbers"),
        (
            ("base-to-new", "--datasets", "demo", "--methods", "coop", "--novel", "nosuch"),
            "neither a file nor a source",
        ),
        (("base-to-new", "--datasets", "demo", "--methods", "maple"), "method maple prompts the image tower"),
        (("base-to-new", "--datasets", "demo", "--config", "missing.toml"), "missing.toml"),
        (("base-to-new", "--datasets", "demo", "--set", "tau=3"), "expected SECTION.KEY=VALUE"),
        (("base-to-new", "--datasets", "/gone/photos", "--methods", "coop"), "/gone/photos"),
        (("base-to-new",), "--datasets"),
        (("run", "missing.toml"), "missing.toml"),
        (("cross-dataset", "--methods", "coop", "--data-root", "/gone"), "imagenet"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = call(*words, "--out", tmp_path / "out", "--quiet")
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("text", ["common = 3", "methods = 3", "[methods]\ncoop = 3"])
def test_a_config_file_holds_tables(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(text)
    done = call("base-to-new", "--datasets", "demo", "--config", tmp_path / "odd.toml", "--dry-run")
    assert done.exit_code == 2, done.output
    assert "odd.toml: expected settings in tables" in done.stderr


def test_a_run_that_fails_is_named_and_exits_1(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    words = ("base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--seeds", "1", "--out", tmp_path / "out")
    done = call(*words, "--methods", "coop,maple", *blobs)
    assert done.exit_code == 1, done.output
    assert "Failed: " in done.stderr
    assert "maple" in done.stderr
    assert len(read(tmp_path / "out")) == 2


def test_numbers_may_be_ranges_and_repetitions_count_once(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    words = ("base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--methods", "coop,coop", "--seeds", "1-3,2")
    done = call(*words, "--out", tmp_path / "out", "--dry-run", *blobs)
    assert "6 runs, 6 to do" in done.stdout


def test_plain_environment_names_reach_the_language_model(
    tmp_path: Path, blobs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAR_LLM_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("SAR_LLM_MODEL", "m")
    words = ("base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--methods", "coop", "--seeds", "1")
    done = call(*words, *blobs, "--novel", "llm", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "the endpoint http://127.0.0.1:9/v1 cannot be reached" in done.stderr
    assert not list(tmp_path.glob("out/*/*.json"))


@needs_shared
def test_dtd_without_its_absent_classes(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    from support.photos import SHARED

    words = ("base-to-new", "--datasets", "dtd", "--data-root", SHARED, "--seeds", "1", "--shots", "1")
    words = (*words, "--methods", "coop", "--sar", "off", "--out", tmp_path / "out", *blobs)
    done = call(*words)
    assert done.exit_code == 2
    assert "4440 of 5640 photos are missing" in done.stderr
    assert "--allow-missing" in done.stderr
    done = call(*words, "--allow-missing")
    assert done.exit_code == 0, done.output
    (content,) = read(tmp_path / "out")
    assert len(content["per_class"]["base"]) == len(content["per_class"]["new"]) == 5


@pytest.mark.parametrize("command", ["base-to-new", "few-shot"])
def test_all_that_is_missing_is_named_before_anything_starts(
    tmp_path: Path, blobs: tuple[str, ...], command: str
) -> None:
    words = (command, "--datasets", f"{tmp_path / 'blobs.safetensors'},caltech101,dtd", "--methods", "coop")
    no_backbone = ("--pretrained", tmp_path / "none.pt")
    words = (*words, "--data-root", tmp_path, "--out", tmp_path / "out", *blobs, *no_backbone)
    done = call(*words)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: 2 datasets cannot be found: caltech101, dtd; the first: ")
    assert f"expected split_zhou_Caltech101.json in {tmp_path / 'caltech-101'}" in line
    assert not (tmp_path / "out").exists()
    dry = call(*words, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert [line.split(":")[:2] for line in dry.stderr.splitlines()] == [
        ["Warning", " dataset caltech101"],
        ["Warning", " dataset dtd"],
    ]
    misspelt = call(*words, "--datasets", "caltech101,caltech", "--dry-run")
    assert misspelt.exit_code == 2
    assert "caltech: no such folder" in misspelt.stderr
    assert misspelt.stdout == ""


def test_the_data_of_all_sweep_files_and_of_all_targets_are_looked_for_first(
    tmp_path: Path, blobs: tuple[str, ...]
) -> None:
    files = [tmp_path / "one.toml", tmp_path / "two.toml"]
    files[0].write_text(f'[common]\ndata = "{tmp_path / "blobs.safetensors"}"\n[runs.plain]\nsar = false\n')
    files[1].write_text('targets = ["pacs/sketch"]\n[common]\ndata = "demo"\n[runs.plain]\nsar = false\n')
    done = call("run", *files, "--out", tmp_path / "out", *blobs)
    assert done.exit_code == 2, done.output
    assert "Error: pacs/sketch: no such file or folder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_paper_preset_asks_for_the_data_first(tmp_path: Path) -> None:
    done = call("base-to-new", "--preset", "paper", "--out", tmp_path / "out")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "11 datasets cannot be found: imagenet, caltech101, " in line
    assert "--data-root" in line


def test_the_paper_preset_says_what_it_takes_and_options_win(tmp_path: Path) -> None:
    words = ("base-to-new", "--preset", "paper", "--data-root", tmp_path, "--out", tmp_path / "out", "--dry-run")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert "594 runs, 594 to do" in done.stdout  # 11 datasets, 3 seeds, 9 rows, without and with SAR
    assert done.stdout.splitlines()[0].split() == ["imagenet", "54", "to", "do,", "0", "done"]
    assert len(done.stdout.splitlines()) == 12
    assert "594 runs" in done.output.splitlines()[-1]  # below the list, where it is seen
    assert "estimated" in done.stderr.splitlines()[-1]
    fewer = call(*words, "--datasets", "caltech101,dtd", "--methods", "coop", "--seeds", "1", "--format", "json")
    assert [row["dataset"] for row in json.loads(fewer.stdout)] == ["caltech101"] * 2 + ["dtd"] * 2


def test_the_paper_preset_on_data_of_ones_own(tmp_path: Path) -> None:
    words = ("base-to-new", "--preset", "paper", "--out", tmp_path / "out", "--dry-run", "--datasets")
    done = call(*words, "demo")
    assert done.exit_code == 0, done.output
    assert "known by name alone" in done.stderr
    misspelt = call(*words, "cifra")
    assert misspelt.exit_code == 2, misspelt.output
    assert misspelt.stderr.startswith("Error: cifra: no such folder, and no such dataset")


def test_without_a_preset_datasets_are_asked_for() -> None:
    done = call("base-to-new", "--methods", "coop")
    assert done.exit_code == 2
    assert "--datasets" in done.stderr
