"""One run from settings to result: the record and what an experiment adds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.blobs import write_blobs
from support.jobs import job

from sar_train.config.run import RunConfig
from sar_train.errors import RunError
from sar_train.experiment import code
from sar_train.experiment.execute import execute, keep_or_remove, run_folder
from sar_train.training import checkpoint, trainer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return write_blobs(tmp_path_factory.mktemp("blobs"))


def test_a_result_is_the_record_and_more(config: RunConfig, tmp_path: Path) -> None:
    found = execute(job(config, data_root="/private"), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert found["metrics"] == record["metrics"]
    assert found["history"] == record["history"]
    assert (found["protocol"], found["name"], found["code"]) == ("base-to-new", "coop+sar", code.identity())
    assert found["key"] == job(config).key(code.identity()["digest"])
    assert found["similarities"]["base"] == 4
    assert len(found["similarities"]["names"]) == 8
    assert found["targets"] is None
    assert found["zero_shot_check"] is None
    assert "/private" not in json.dumps(found), "where things are on this machine is nobody's business"


def test_a_finished_run_is_not_trained_again(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = execute(job(config), tmp_path / "run")
    monkeypatch.setattr(trainer, "run", lambda *_, **__: pytest.fail("trained again"))
    again = execute(job(config), tmp_path / "run")
    assert {**again, "finished": ""} == {**first, "finished": ""}


def test_folders_are_kept_or_removed(config: RunConfig, tmp_path: Path) -> None:
    folder = run_folder(job(config), tmp_path, "abc")
    assert folder.name == ".coop+sar-4shots-s1-abc"
    for kept in (None, tmp_path / "kept"):
        folder.mkdir(parents=True)
        (folder / "prompts").write_text("x")
        keep_or_remove(folder, kept)
        assert not folder.exists()
    assert (tmp_path / "kept" / "prompts").is_file()


def test_a_half_trained_run_is_taken_up_although_data_lie_elsewhere_now(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = job(config, sar=False, epochs=3)
    whole = execute(plain, tmp_path / "whole")
    monkeypatch.setattr(trainer, "_SAVE_EVERY", 0.0)
    real, seen = checkpoint.save_state, []

    def save_once(*args: Any) -> None:
        real(*args)
        seen.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_state", save_once)
    with pytest.raises(KeyboardInterrupt):
        execute(plain, tmp_path / "run")
    monkeypatch.setattr(checkpoint, "save_state", real)
    assert seen
    moved = job(config, sar=False, epochs=3, data_root="/elsewhere", novel="words", device="cpu")
    assert moved.key("x") == plain.key("x")
    again = execute(moved, tmp_path / "run")
    assert again["metrics"] == whole["metrics"]
    assert again["history"] == whole["history"]


def test_two_sweeps_do_not_share_a_run(config: RunConfig, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from sar_infer.storage.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another sweep is at this run"):
            execute(job(config), tmp_path / "run")
    finally:
        other.kill()
        other.communicate()
    assert execute(job(config), tmp_path / "run")["metrics"]
