"""Many runs: done ones are skipped, failures do not stop the rest, and a killed sweep ends as an unbroken one."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.blobs import write_blobs
from support.features import altered
from support.folders import listing
from support.jobs import here, job
from support.results import pack

from sar_train.config.run import RunConfig
from sar_train.data.feature_file import DEMO_FILE, load_features, save_features
from sar_train.errors import DataError
from sar_train.experiment import code
from sar_train.experiment.job import Job
from sar_train.experiment.plan import read_plan
from sar_train.experiment.pools import JobOutcome, Task
from sar_train.experiment.sweep import Sweep, find_result, run_sweep
from sar_train.report.formats import to_markdown
from sar_train.report.results import ARCHIVE, read
from sar_train.report.tables import closing_tables

DIGEST = code.identity()["digest"]
OTHER = "0" * 16
"""The digest of other code."""


def silent(text: str) -> None:
    del text


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    config = write_blobs(tmp_path_factory.mktemp("blobs"))
    return [
        job(config, "kgcoop+sar" if sar else "kgcoop", method="kgcoop", seed=seed, sar=sar)
        for seed in (1, 2)
        for sar in (False, True)
    ]


@pytest.fixture(scope="module")
def whole(grid: list[Job], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep, list[str]]:
    """Return the folder of a sweep that ran through, its outcome and what it said."""
    out, lines = tmp_path_factory.mktemp("whole"), list[str]()
    return out, run_sweep(grid, out, here, lines.append, keep_prompts=True), lines


@pytest.fixture
def first(grid: list[Job], whole: tuple[Path, Sweep, list[str]], tmp_path: Path) -> Path:
    """Return the result of the first run alone, in a folder of its own, without its prompts."""
    path = tmp_path / "out" / grid[0].path(DIGEST)
    path.parent.mkdir(parents=True)
    for ending in (".json", ".toml"):
        shutil.copy((whole[0] / grid[0].path(DIGEST)).with_suffix(ending), path.with_suffix(ending))
    return path


def by_other_code(result: Path, run: Job, out: Path) -> Path:
    """Move a result to where other code would have left it, saying so."""
    content = json.loads(result.read_text())
    content["code"]["digest"], content["key"] = OTHER, run.key(OTHER)
    path = out / run.path(OTHER)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    result.with_suffix(".toml").rename(path.with_suffix(".toml"))
    result.unlink()
    return path


def numbers(out: Path) -> dict[str, Any]:
    """Return what counts of every result: all but times and memory."""
    results = {path.relative_to(out).as_posix(): json.loads(path.read_text()) for path in out.glob("*/*.json")}
    apart = ("timing", "peak_memory_mib", "finished")
    return {name: {k: v for k, v in content.items() if k not in apart} for name, content in results.items()}


def test_a_sweep_leaves_a_json_and_a_toml_file_a_run_and_its_prompts_on_request(
    whole: tuple[Path, Sweep, list[str]],
) -> None:
    out, done, lines = whole
    assert (len(done.results), done.failed) == (4, [])
    (folder,) = out.iterdir()
    assert sorted(path.suffix for path in folder.iterdir() if path.is_file()) == [".json"] * 4 + [".toml"] * 4
    for path in done.results:
        (again,) = read_plan(str(path.with_suffix(".toml")), {}, {})
        assert again.key(DIGEST) == json.loads(path.read_text())["key"] == path.stem[-16:]
        assert listing(path.with_suffix("")) == ["fitted_statistics.safetensors", "prompts.safetensors", "record.json"]
    assert "[4/4]" in lines[-1]


def test_an_interrupted_sweep_ends_with_the_same_results_and_what_is_done_is_not_done_again(
    grid: list[Job], whole: tuple[Path, Sweep, list[str]], tmp_path: Path
) -> None:
    def interrupted(tasks: Sequence[Task]) -> Iterator[tuple[Job, JobOutcome]]:
        yield from itertools.islice(here(tasks), 1)
        if len(tasks) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(grid, tmp_path, interrupted, silent)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.json")}
    assert len(stamps) == 2
    lines: list[str] = []
    done = run_sweep(grid, tmp_path, here, lines.append)
    assert lines[0] == "2 of 4 runs are done already"
    assert set(done.results[:2]) == set(stamps)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert numbers(tmp_path) == numbers(whole[0])
    broken, unbroken = (list(map(to_markdown, closing_tables(read(out)))) for out in (tmp_path, whole[0]))
    assert broken == unbroken != []


def test_other_code_means_another_result_unless_any_code_will_do(grid: list[Job], first: Path, tmp_path: Path) -> None:
    run, out = grid[0], tmp_path / "out"
    assert find_result(run, out) == first
    assert find_result(grid[2], out, any_code=True) is None
    old = by_other_code(first, run, out)
    assert find_result(run, out) is None
    assert find_result(run, out, any_code=True) == old


def test_packed_results_are_done(grid: list[Job], first: Path, tmp_path: Path) -> None:
    run, out, older = grid[0], tmp_path / "out", tmp_path / "older"
    shutil.copytree(out, older)
    pack(out)
    assert find_result(run, out) == out / ARCHIVE
    assert find_result(grid[1], out) is None
    assert run_sweep([run], out, here, silent).results == [out / ARCHIVE]
    by_other_code(older / first.relative_to(out), run, older)
    pack(older)
    assert find_result(run, older) is None
    assert find_result(run, older, any_code=True) == older / ARCHIVE
    (out / ARCHIVE).write_bytes((out / ARCHIVE).read_bytes()[:-1])
    with pytest.raises(DataError, match=ARCHIVE):
        find_result(run, out)


def test_a_known_zero_shot_that_is_missed_stops_after_the_first_run_of_a_dataset(tmp_path: Path) -> None:
    """The demo's features, a few of them under the label of another class."""
    demo = load_features(DEMO_FILE)
    labels = demo.labels("test").clone()
    labels[::50] = labels[::50].roll(1)
    save_features(altered(demo, {"test": (demo.plain("test"), labels)}), tmp_path / "x.safetensors")
    quick = {"protocol": "base-to-new", "method": "kgcoop", "sar": False, "epochs": 1, "shots": 1, "statistics": False}
    config = RunConfig(str(tmp_path / "x.safetensors"), **quick)  # type: ignore[arg-type]
    jobs = [job(config, "kgcoop", seed=seed) for seed in (1, 2)]
    with pytest.raises(DataError, match=r"points too low: .* Run the command again to continue anyway"):
        run_sweep(jobs, tmp_path / "out", here, silent)
    assert len(list(tmp_path.glob("out/*/*.json"))) == 1
    assert len(run_sweep(jobs, tmp_path / "out", here, silent).results) == 2
