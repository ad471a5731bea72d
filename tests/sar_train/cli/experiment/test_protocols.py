"""``sar-experiment``'s training commands as people type them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.blobs import write_blobs
from support.jobs import here
from support.llm import Reply, serve
from support.photos import SHARED, needs_shared, write_folder
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


def call(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("[!.]*/*.json"))]


def test_base_to_new_runs_the_grid_and_skips_what_is_done(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    out, config = tmp_path / "out", tmp_path / "chosen.toml"
    config.write_text("[common]\nviews = 2\n[methods.coop.sar]\nweight = 2.5\n")
    words = ("base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--shots", "3", "--config", config)
    words = (*words, "--out", out, *blobs, "--format", "json")
    content = json.loads(call(*words, "--methods", "coop,kgcoop", "--seeds", "1", "--sar", "on").stdout)
    assert len(content["results"]) == 2
    assert content["zero_shot"][0]["dataset"]["name"] == "blobs"
    runs = {run["name"]: run for run in read(out)}
    assert runs.keys() == {"coop+sar", "kgcoop+sar"}
    assert runs["coop+sar"]["settings"]["sar"]["weight"] == 2.5 != runs["kgcoop+sar"]["settings"]["sar"]["weight"]
    assert {(run["config"]["views"], run["config"]["shots"]) for run in runs.values()} == {(2, 3)}
    again = call(*words, "--methods", "coop,coop", "--seeds", "1-2,2", "--sar", "on")
    assert len(json.loads(again.stdout)["results"]) == 2
    assert sorted((run["name"], run["seed"]) for run in read(out)) == [
        ("coop+sar", 1), ("coop+sar", 2), ("kgcoop+sar", 1),
    ]  # fmt: skip


def test_a_dry_run_lists_and_writes_nothing(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    words = ("few-shot", "--datasets", tmp_path / "blobs.safetensors", "--methods", "coop", "--out", out, *blobs)
    shown = call(*words, "--dry-run").stdout
    assert "30 runs, 30 to do" in shown
    assert "coop+sar-8shots-s3" in shown
    assert not out.exists()
    rows = json.loads(call(*words, "--dry-run", "--format", "json").stdout)
    assert [row["done"] for row in rows] == [False] * 30


def test_domains_are_trained_on_and_evaluated(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    for domain in ("photo", "sketch"):
        write_folder(tmp_path / "domains" / domain, {"fox": 4, "boat": 4, "lamp": 4})
    words = ("domain-generalisation", "--data-root", tmp_path / "domains", "--source", "photo", "--targets", "sketch")
    call(*words, "--methods", "coop", "--seeds", "1", "--shots", "2", "--sar", "off", "--out", tmp_path / "out", *blobs)
    (content,) = read(tmp_path / "out")
    assert content["protocol"] == "domain-generalisation"
    assert content["targets"]["sketch"]["photos"] == 12
    assert content["metrics"]["new_accuracy"] is None


def test_a_sweep_file_is_run(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        f'seeds = [1]\n[common]\ndata = "{tmp_path / "blobs.safetensors"}"\nprotocol = "base-to-new"\n'
        '[runs."no SAR"]\nsar = false\n[runs.weak]\nsar.weight = 0.01\n'
    )
    call("run", sweep, "--out", tmp_path / "out", "--only", "weak", *blobs)
    assert [content["name"] for content in read(tmp_path / "out")] == ["weak"]
    (written,) = (tmp_path / "out").rglob("weak*.toml")
    assert "1 of 1 runs are done" in call("run", written, "--out", tmp_path / "out", *blobs[:-1]).stderr


@pytest.mark.parametrize(
    ("words", "message"),
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
def test_mistakes_are_one_line_and_exit_2(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in call(*words, "--out", tmp_path / "out", "--quiet", code=2).stderr
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("text", ["common = 3", "methods = 3", "[methods]\ncoop = 3"])
def test_a_config_file_holds_tables(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(text)
    done = call("base-to-new", "--datasets", "demo", "--config", tmp_path / "odd.toml", "--dry-run", code=2)
    assert "odd.toml: expected settings in tables" in done.stderr


def test_a_run_that_fails_is_named_and_exits_1(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    words = ("base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--seeds", "1", "--out", tmp_path / "out")
    done = call(*words, "--methods", "coop,maple", "--sar", "off", *blobs, code=1)
    assert "Failed: " in done.stderr
    assert "maple" in done.stderr
    assert len(read(tmp_path / "out")) == 1


def test_plain_environment_names_reach_the_language_model(
    tmp_path: Path, blobs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SAR_LLM_MODEL", "m")
    words = ("base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--methods", "coop", "--seeds", "1")
    with serve(Reply("no", status=401)) as stub:
        monkeypatch.setenv("SAR_LLM_URL", stub.url)
        done = call(*words, *blobs, "--novel", "llm", "--out", tmp_path / "out", code=2)
    assert stub.url in done.stderr
    assert not list(tmp_path.glob("out/*/*.json"))


@needs_shared
def test_dtd_without_its_absent_classes(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    words = ("base-to-new", "--datasets", "dtd", "--data-root", SHARED, "--seeds", "1", "--shots", "1")
    words = (*words, "--methods", "coop", "--sar", "off", "--out", tmp_path / "out", *blobs)
    refusal = call(*words, code=2).stderr
    assert "4440 of 5640 photos are missing" in refusal
    assert "--allow-missing" in refusal
    call(*words, "--allow-missing")
    (content,) = read(tmp_path / "out")
    assert len(content["per_class"]["base"]) == len(content["per_class"]["new"]) == 5


def test_all_that_is_missing_is_named_before_anything_starts(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    words = ("base-to-new", "--datasets", f"{tmp_path / 'blobs.safetensors'},caltech101,dtd", "--methods", "coop")
    no_backbone = ("--pretrained", tmp_path / "none.pt")
    words = (*words, "--data-root", tmp_path, "--out", tmp_path / "out", *blobs, *no_backbone)
    (line,) = call(*words, code=2).stderr.splitlines()
    assert line.startswith("Error: 2 datasets cannot be found: caltech101, dtd; the first: ")
    assert f"expected split_zhou_Caltech101.json in {tmp_path / 'caltech-101'}" in line
    warnings = call(*words, "--dry-run").stderr.splitlines()
    assert [line.split(":")[:2] for line in warnings] == [
        ["Warning", " dataset caltech101"],
        ["Warning", " dataset dtd"],
    ]
    misspelt = call(*words, "--datasets", "caltech101,caltech", "--dry-run", code=2)
    assert "caltech: no such folder" in misspelt.stderr
    assert misspelt.stdout == ""
    files = [tmp_path / "one.toml", tmp_path / "two.toml"]
    files[0].write_text(f'[common]\ndata = "{tmp_path / "blobs.safetensors"}"\n[runs.plain]\nsar = false\n')
    files[1].write_text('targets = ["pacs/sketch"]\n[common]\ndata = "demo"\n[runs.plain]\nsar = false\n')
    done = call("run", *files, "--out", tmp_path / "out", *blobs, code=2)
    assert "Error: pacs/sketch: no such file or folder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_paper_preset_says_what_it_takes_and_options_win(tmp_path: Path) -> None:
    words = ("base-to-new", "--preset", "paper", "--out", tmp_path / "out")
    (line,) = call(*words, code=2).stderr.splitlines()
    assert "11 datasets cannot be found: imagenet, caltech101, " in line
    assert "--data-root" in line
    dry = (*words, "--data-root", tmp_path, "--dry-run")
    done = call(*dry)
    assert "594 runs, 594 to do" in done.stdout  # 11 datasets, 3 seeds, 9 rows, without and with SAR
    assert done.stdout.splitlines()[0].split() == ["imagenet", "54", "to", "do,", "0", "done"]
    assert len(done.stdout.splitlines()) == 12
    assert "594 runs" in done.output.splitlines()[-1]  # below the list, where it is seen
    assert "estimated" in done.stderr.splitlines()[-1]
    fewer = call(*dry, "--datasets", "caltech101,dtd", "--methods", "coop", "--seeds", "1", "--format", "json")
    assert [row["dataset"] for row in json.loads(fewer.stdout)] == ["caltech101"] * 2 + ["dtd"] * 2
    assert "known by name alone" in call(*dry, "--datasets", "demo").stderr
    misspelt = call(*dry, "--datasets", "cifra", code=2)
    assert misspelt.stderr.startswith("Error: cifra: no such folder, nor in ")
