"""``sar-experiment`` as people type it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file
from support.blobs import write_blobs
from support.folders import listing
from support.jobs import here
from support.llm import Reply, serve
from support.photos import write_folder
from support.results import pack, result, sample, write
from support.tiny import VIT

from sar_train.cli import experiment
from sar_train.cli.experiment import main
from sar_train.experiment import pools
from sar_train.experiment.plan import read_plan


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny backbone is registered in this process alone; `test_pools` has real processes."""
    monkeypatch.setattr(pools, "local", lambda workers: here)


@pytest.fixture
def blobs(tmp_path: Path) -> tuple[str, ...]:
    """The options of a run of a second."""
    config = write_blobs(tmp_path)
    settings = {"novel": config.novel, "pretrained": "random", "epochs": 1, "sar.subset": 4}
    return ("--backbone", VIT, "--quiet", *(word for key, v in settings.items() for word in ("--set", f"{key}={v}")))


def call(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("[!.]*/*.json"))]


# ---------------------------------------------------------------------------------------------------------------- run
def test_a_protocol_is_run_its_tables_are_printed_and_what_is_done_is_skipped(
    tmp_path: Path, blobs: tuple[str, ...]
) -> None:
    out, plan = tmp_path / "out", tmp_path / "plan.toml"
    plan.write_text("experiment = 'base-to-new'\ncommon.views = 2\n[methods.coop.sar]\nweight = 2.5\n")
    words = ("run", plan, "--datasets", tmp_path / "blobs.safetensors", "--shots", "3", "--sar", "on")
    words = (*words, "--out", out, *blobs)
    shown = call(*words, "--methods", "coop,kgcoop", "--seeds", "1").stdout
    assert shown.startswith("**Base to new on blobs, 3 shots, ")
    assert "| CoOp | " in shown
    runs = {run["name"]: run for run in read(out)}
    assert runs.keys() == {"coop+sar", "kgcoop+sar"}
    assert runs["coop+sar"]["settings"]["sar"]["weight"] == 2.5 != runs["kgcoop+sar"]["settings"]["sar"]["weight"]
    assert {(run["config"]["views"], run["config"]["shots"]) for run in runs.values()} == {(2, 3)}
    again = call(*words, "--methods", "coop,coop", "--seeds", "1-2,2", "--format", "json")
    assert len(json.loads(again.stdout)["results"]) == 2
    assert sorted((run["name"], run["seed"]) for run in read(out)) == [
        ("coop+sar", 1), ("coop+sar", 2), ("kgcoop+sar", 1),
    ]  # fmt: skip


def test_a_dry_run_lists_or_counts_and_writes_nothing(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    words = ("run", "few-shot", "--datasets", tmp_path / "blobs.safetensors", "--out", out, *blobs, "--dry-run")
    shown = call(*words, "--methods", "coop").stdout
    assert "to do  " in shown
    assert "coop+sar-8shots-s3" in shown
    assert "30 runs, 30 to do" in shown
    counted = call(*words, "--methods", "coop,kgcoop").stdout.splitlines()
    assert counted[:2] == [f"{tmp_path / 'blobs.safetensors'}  60 to do, 0 done", "60 runs, 60 to do"]
    content = json.loads(call(*words, "--methods", "coop", "--format", "json").stdout)
    assert [row["done"] for row in content["runs"]] == [False] * 30
    assert {name: one["runs"] for name, one in content["price"]["methods"].items()} == {"coop": 15, "coop+sar": 15}
    assert not out.exists()


def test_the_price_has_the_views_that_a_run_encodes(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    write_folder(tmp_path / "things", {"fox": 5, "boat": 5, "lamp": 5})  # 12 photos to learn from, 3 to test on
    words = ("run", "few-shot", "--datasets", tmp_path / "things", "--methods", "coop,zero-shot", "--seeds", "1")
    words = (*words, "--shots", "4", "--out", tmp_path / "out" / "runs", *blobs, "--set", "views=3")
    price = json.loads(call(*words, "--dry-run", "--format", "json").stdout)["price"]
    assert {name: one["runs"] for name, one in price["methods"].items()} == {"coop": 1, "coop+sar": 1, "zero-shot": 1}
    assert price["seconds"] == price["encoding"] + sum(one["seconds"] for one in price["methods"].values())
    assert price["methods"]["coop"]["seconds"] > 0
    assert not (tmp_path / "out").exists()
    call(*words)
    cached = [load_file(path) for path in (tmp_path / "out" / ".features").rglob("*.safetensors")]
    assert price["views"] == sum(len(tensors["keys"]) for tensors in cached) == 12 * 3 + 3
    assert price["features"] == sum(tensor.nbytes for tensors in cached for tensor in tensors.values())


def test_domains_are_trained_on_and_evaluated(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    for domain in ("photo", "sketch"):
        write_folder(tmp_path / "domains" / domain, {"fox": 4, "boat": 4, "lamp": 4})
    words = ("run", "domain-generalisation", "--data-root", tmp_path / "domains", "--datasets", "photo")
    words = (*words, "--targets", "sketch", "--methods", "coop", "--seeds", "1", "--shots", "2", "--sar", "off")
    call(*words, "--out", tmp_path / "out", *blobs)
    (content,) = read(tmp_path / "out")
    assert content["protocol"] == "domain-generalisation"
    assert content["targets"]["sketch"]["photos"] == 12
    assert content["metrics"]["new_accuracy"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("base-to-new", "--datasets", "demo", "--methods", "copo"), "did you mean"),
        (("base-to-new", "--datasets", "demo", "--seeds", "one"), "expected whole numbers"),
        (("base-to-new", "--datasets", "demo", "--seeds", "3-1"), "a range of at most 1,000 numbers"),
        (("base-to-new", "--datasets", "demo", "--seeds", "1-99999999999"), "a range of at most 1,000 numbers"),
        (("base-to-new", "--datasets", "demo", "--methods", "maple"), "method maple prompts the image tower"),
        (("base-to-new", "--datasets", "demo", "--set", "tau"), "expected KEY=VALUE"),
        (("base-to-new", "--datasets", "demo", "--methods", "coop", "--set", "epoch=3"), "did you mean epochs"),
        (("base-to-new", "--datasets", "/gone/photos", "--methods", "coop"), "/gone/photos"),
        (("base-to-new",), "--datasets"),
        (("base2new", "--datasets", "demo"), "base2new: neither a protocol nor a file; did you mean base-to-new?"),
        (("missing.toml",), "missing.toml: neither a protocol nor a file; expected base-to-new, few-shot, "),
        (("base-to-new", "--datasets", "demo", "--set", "novel=wordnett"), "did you mean wordnet?"),
        (("base-to-new", "--datasets", "caltech101"), "dataset caltech101: give with --data-root"),
        (("cross-dataset", "--methods", "coop", "--data-root", "/gone"), "imagenet"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for dry in ([], ["--dry-run"]):
        assert message in call("run", *words, "--out", tmp_path / "out", "--quiet", *dry, code=2).stderr
    assert not list(tmp_path.rglob("*.json"))


def test_a_run_that_fails_is_named_and_exits_1(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    words = ("run", "base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--seeds", "1")
    words = (*words, "--out", tmp_path / "out", "--sar", "off", *blobs)
    done = call(*words, "--methods", "coop,maple", code=1)
    assert "Failed: " in done.stderr
    assert "maple" in done.stderr
    assert len(read(tmp_path / "out")) == 1


def test_plain_environment_names_reach_the_language_model(
    tmp_path: Path, blobs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SAR_LLM_MODEL", "m")
    words = ("run", "base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--methods", "coop", "--seeds", "1")
    with serve(Reply("no", status=401)) as stub:
        monkeypatch.setenv("SAR_LLM_URL", stub.url)
        done = call(*words, *blobs, "--set", "novel=llm", "--sar", "on", "--out", tmp_path / "out", code=1)
    assert stub.url in done.stderr


def test_all_that_is_missing_is_named_before_anything_starts(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    write_folder(tmp_path / "pacs", {"photo/fox": 1, "photo/boat": 1, "sketch/fox": 1, "sketch/boat": 1})
    names = f"{tmp_path / 'blobs.safetensors'},caltech101,../nothing,nowhere,pacs"
    words = ("run", "base-to-new", "--datasets", names, "--methods", "coop", "--data-root", tmp_path, *blobs)
    words = (*words, "--set", "novel=wordnett")
    (line,) = call(*words, code=2).stderr.splitlines()
    unusable = "caltech101, ../nothing, nowhere, pacs, novel=wordnett"
    assert line.startswith(f"Error: 5 inputs cannot be used: {unusable}; the first: ")
    assert f"expected split_zhou_Caltech101.json in {tmp_path / 'caltech-101'}" in line
    dry = call(*words, "--dry-run", code=2)
    assert dry.stderr.splitlines() == [line]
    assert dry.stdout.endswith("30 runs, 30 to do\n")


def test_results_of_another_version_are_announced(tmp_path: Path, blobs: tuple[str, ...]) -> None:
    words = ("run", "base-to-new", "--datasets", tmp_path / "blobs.safetensors", "--methods", "coop", "--seeds", "1")
    words = (*words, "--shots", "3", "--sar", "off", "--out", tmp_path / "out", *blobs)
    (path,) = map(Path, json.loads(call(*words, "--format", "json").stdout)["results"])
    assert call(*words, "--dry-run").stderr == ""
    (run,) = read_plan(str(path.with_suffix(".toml")), {}, {})
    content = json.loads(path.read_text())
    content["code"]["digest"], content["key"] = "0" * 16, run.key("0" * 16)
    path.with_name(f"{run.stem}-{content['key']}.json").write_text(json.dumps(content))
    path.unlink()
    said = "1 of 1 runs are repeated: another version of the code made their results in"
    assert call(*words, "--any-code").stderr == ""
    for dry in (["--dry-run"], []):
        assert call(*words, *dry).stderr.splitlines() == [f"{said} {tmp_path / 'out'}; --any-code keeps these"]


def test_the_papers_plan(tmp_path: Path) -> None:
    words = ("run", Path(__file__).parents[3] / "experiments" / "paper.toml", "--data-root", tmp_path, "--dry-run")
    lines = call(*words, code=2).stdout.splitlines()
    assert lines[0].split() == ["imagenet", "54", "to", "do,", "0", "done"]
    assert lines[-1] == "594 runs, 594 to do"  # 11 datasets, 3 seeds, 9 rows, without and with SAR
    fewer = call(*words, "--datasets", "caltech101,dtd", "--methods", "coop", "--seeds", "1", code=2)
    assert [line.split()[2] for line in fewer.stdout.splitlines()[:-1]] == ["caltech101"] * 2 + ["dtd"] * 2


# --------------------------------------------------------------------------------------------------- table and report
@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a folder with a run that has a page without figures."""
    write(tmp_path, result(protocol="few-shot", new=None, zero_shot=(50.0, None), history=[]))
    return tmp_path


def test_the_page_lies_in_the_folder_and_the_browser_is_opened_when_asked(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(experiment.click, "launch", opened.append)
    page = results / "report" / "index.html"
    for options in ([], ["--open"]):
        assert call("report", results, *options).output == f"{page}\n"
    assert opened == [page.as_uri()]
    assert f"<title>Results of {results.name}</title>" in page.read_text(encoding="utf-8")
    assert f"<code>sar-experiment report {results.name}</code>" in page.read_text(encoding="utf-8")
    out = results / "a" / "b"
    (results / "broken.json").write_text("{")
    done = call("report", results, "--out", out, "--title", "Mine")
    assert "<h1>Mine</h1>" in (out / "index.html").read_text(encoding="utf-8")
    assert done.stderr.startswith(f"Warning: {results / 'broken.json'}: ")


def test_what_is_refused(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, message in (
        (("report", tmp_path / "empty"), "no results"),
        (("table", tmp_path / "nowhere"), "no such folder"),
        (("report", results, "--out", results), "not a report"),
        (("table", results, "--only", "nothing"), "there are few-shot-caltech101-sar-mini"),
    ):
        done = call(*words, code=2)
        assert message in done.stderr
        assert done.stdout == ""


def test_a_missing_package_is_named_in_one_line_and_tables_do_without(results: Path) -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "missing = ['jinja2', 'matplotlib']\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in missing: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from sar_train.cli.experiment import main\n"
        "for words in (['run', '--help'], ['table', sys.argv[1]]):\n"
        "    assert CliRunner().invoke(main, words).exit_code == 0\n"
        "assert not {'torch', 'open_clip', 'openai', 'ray'} & set(sys.modules)\n"
        "for package in missing.copy():\n"
        "    missing[:] = [package]\n"
        "    done = CliRunner().invoke(main, ['report', sys.argv[1]])\n"
        "    print(done.exit_code, done.stderr, end='')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(results)], capture_output=True, text=True, timeout=120)
    refusals = [
        f"2 Error: this command needs {package}: pip install '.[experiment]' in a clone of sar-clip"
        for package in ("jinja2", "matplotlib")
    ]
    assert done.stdout.splitlines() == refusals, done.stderr
    assert listing(results) == [path.name for path in results.glob("*.json")]


def test_tables_in_every_format_of_loose_and_packed_results(tmp_path: Path) -> None:
    sample(tmp_path / "runs")
    forms = ("markdown", "csv", "latex", "json")
    before = {form: call("table", tmp_path / "runs", "--format", form).stdout for form in forms}
    assert "| CoOp | **" in before["markdown"]
    assert r"\toprule" in before["latex"]
    sections = {table["section"] for table in json.loads(before["json"])}
    assert {"base-to-new", "few-shot", "cross-dataset", "custom"} <= sections
    pack(tmp_path / "runs")
    assert {form: call("table", tmp_path / "runs", "--format", form).stdout for form in forms} == before
    rows = call("table", tmp_path / "runs", "--format", "csv", "--only", "RELATIONS").stdout.splitlines()
    assert rows[0] == "# Similarity structure of held-out names on caltech101, 16 shots, sar-mini"
    assert next(csv.reader(rows[1:]))[0] == "method"
