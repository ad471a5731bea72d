"""Many runs: done ones are skipped, failures do not stop the rest, and a killed sweep ends as an unbroken one."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.blobs import write_blobs
from support.folders import listing
from support.jobs import here, job

from sar_train.config.run import RunConfig
from sar_train.errors import DataError
from sar_train.experiment import code, sweep
from sar_train.experiment.job import Job
from sar_train.experiment.plan import read_spec
from sar_train.experiment.pools import JobOutcome, Task
from sar_train.experiment.sweep import as_json, find_result, run_sweep
from sar_train.report.packed import pack
from sar_train.report.results import read
from sar_train.report.table import to_markdown
from sar_train.report.tables import closing_tables


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return write_blobs(tmp_path_factory.mktemp("blobs"))


def grid(config: RunConfig) -> list[Job]:
    return [
        job(config, "kgcoop+sar" if sar else "kgcoop", method="kgcoop", seed=s, sar=sar)
        for s in (1, 2)
        for sar in (False, True)
    ]


def numbers(out: Path) -> dict[str, Any]:
    """What counts of every result: all but times and memory."""
    found = {}
    for path in out.rglob("*.json"):
        content = json.loads(path.read_text())
        content.pop("timing"), content.pop("peak_memory_mib"), content.pop("finished")
        found[path.relative_to(out).as_posix()] = content
    return found


def silent(text: str) -> None:
    del text


def test_a_sweep_leaves_a_json_and_a_toml_file_a_run(config: RunConfig, tmp_path: Path) -> None:
    told: list[str] = []
    done = run_sweep(grid(config), tmp_path, here, told.append)
    assert len(done.results) == 4
    assert not done.failed
    names = listing(done.results[0].parent)
    assert sorted(Path(name).suffix for name in names) == [".json"] * 4 + [".toml"] * 4
    for path in done.results:
        (again,) = read_spec(path.with_suffix(".toml"))
        assert again.key(code.identity()["digest"]) == json.loads(path.read_text())["key"] == path.stem[-16:]
    assert "[4/4]" in told[-1]


def test_what_is_done_is_not_done_again(config: RunConfig, tmp_path: Path) -> None:
    first = run_sweep(grid(config)[:2], tmp_path, here, silent)
    stamps = [path.stat().st_mtime_ns for path in first.results]
    told: list[str] = []
    second = run_sweep(grid(config), tmp_path, here, told.append)
    assert told[0] == "2 of 4 runs are done already"
    assert second.results[:2] == first.results
    assert [path.stat().st_mtime_ns for path in first.results] == stamps
    assert len(second.results) == 4


def test_an_interrupted_sweep_ends_with_the_same_results(config: RunConfig, tmp_path: Path) -> None:
    def interrupted(tasks: Sequence[Task]) -> Iterator[tuple[Job, JobOutcome]]:
        yield from itertools.islice(here(tasks), 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(grid(config), tmp_path / "broken", interrupted, silent)
    assert len(numbers(tmp_path / "broken")) == 2
    run_sweep(grid(config), tmp_path / "broken", here, silent)
    run_sweep(grid(config), tmp_path / "whole", here, silent)
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")
    broken, whole = (closing_tables(read(tmp_path / name)) for name in ("broken", "whole"))
    assert whole
    assert list(map(to_markdown, broken)) == list(map(to_markdown, whole))


def test_a_run_that_fails_does_not_stop_the_others(config: RunConfig, tmp_path: Path) -> None:
    bad = job(config, "bad", data=str(tmp_path / "gone" / "photos"))
    told: list[str] = []
    done = run_sweep([bad, *grid(config)[:1]], tmp_path / "out", here, told.append)
    assert len(done.results) == 1
    (failure,) = done.failed
    assert "gone" in failure
    assert "FAILED" in told[0]


OTHER = "0" * 16
"""The digest of other code."""


def by_other_code(result: Path, one: Job, out: Path) -> Path:
    """Move a result to where other code would have left it, saying so."""
    content = json.loads(result.read_text())
    content["code"]["digest"], content["key"] = OTHER, one.key(OTHER)
    place = out / one.path(OTHER)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(content))
    result.with_suffix(".toml").rename(place.with_suffix(".toml"))
    result.unlink()
    return place


def test_other_code_means_another_result_unless_any_code_will_do(config: RunConfig, tmp_path: Path) -> None:
    one = grid(config)[0]
    (made,) = run_sweep([one], tmp_path, here, silent).results
    old = by_other_code(made, one, tmp_path)
    assert find_result(one, tmp_path) is None
    assert find_result(one, tmp_path, any_code=True) == old
    assert find_result(job(config, "kgcoop", method="kgcoop", seed=9, sar=False), tmp_path, any_code=True) is None
    (new,) = run_sweep([one], tmp_path, here, silent).results
    assert new == made != old
    assert old.is_file()
    assert json.loads(new.read_text())["code"] == code.identity()


def test_results_from_before_keys_covered_photos_count_for_any_code(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    one = Job("few-shot", "coop", RunConfig(data=str(tmp_path / "photos")))
    path = tmp_path / one.folder / f"{one.stem}-0.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"key": one.key("old", with_photos=False), "code": {"digest": "old"}}))
    assert find_result(one, tmp_path) is None
    assert find_result(one, tmp_path, any_code=True) == path


def test_packed_results_are_done(config: RunConfig, tmp_path: Path) -> None:
    (one, two), out = grid(config)[:2], tmp_path / "out"
    (made,) = run_sweep([one], out, here, silent).results
    older = tmp_path / "older"
    shutil.copytree(made.parent, older / made.parent.name)
    archive = pack(out, silent).archive
    assert find_result(one, out) == archive
    assert find_result(two, out) is None
    done = run_sweep([one, two], out, here, silent)
    assert done.results == [archive, out / two.path(code.identity()["digest"])]
    by_other_code(older / one.path(code.identity()["digest"]), one, older)
    old_archive = pack(older, silent).archive
    assert find_result(one, older) is None
    assert find_result(one, older, any_code=True) == old_archive
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(DataError, match=archive.name):
        find_result(one, out)


def test_a_result_that_says_something_else_than_its_name_is_not_taken(config: RunConfig, tmp_path: Path) -> None:
    one = grid(config)[0]
    (path,) = run_sweep([one], tmp_path, here, silent).results
    path.write_text(json.dumps(json.loads(path.read_text()) | {"key": "0" * 16}))
    assert find_result(one, tmp_path) is None


def test_prompts_are_kept_on_request(config: RunConfig, tmp_path: Path) -> None:
    (path,) = run_sweep(grid(config)[:1], tmp_path, here, silent, keep_prompts=True).results
    assert listing(path.with_suffix("")) == ["fitted_statistics.safetensors", "prompts.safetensors", "record.json"]


@pytest.mark.parametrize("kept", [True, False])
def test_prompts_that_finished_runs_did_not_keep_are_told(config: RunConfig, tmp_path: Path, kept: bool) -> None:
    runs, told = grid(config)[:1], []  # type: ignore[var-annotated]
    run_sweep(runs, tmp_path, here, silent, keep_prompts=kept)
    run_sweep(runs, tmp_path, here, told.append, keep_prompts=True)
    assert [line for line in told if line.startswith("Warning: 1 of these did not keep its prompt")] == told[1:]
    assert len(told) == 2 - kept


@pytest.mark.parametrize(
    "content",
    [
        {"a": [-1], "s": "[ 1, 2 ]"},
        {"a": [1, -2, 3.5], "b": ["x", "y"], "c": []},
        {"names": ["[1,\n 2]"], "n": [[1, 2], [3]]},
        {"x": [1e-05, 2e10]},
    ],
)
def test_json_stays_the_same_with_numbers_on_one_line(content: dict[str, Any]) -> None:
    text = as_json(content)
    assert json.loads(text) == content
    assert not re.search(r"\d,\n\s+-?\d", text)


def test_time_left_is_told_in_words() -> None:
    assert [sweep.remaining(s) for s in (0.2, 60, 600)] == ["", "; about 60 s left", "; about 10 min left"]
