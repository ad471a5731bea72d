"""One run from settings to result: the record and what an experiment adds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.jobs import job, write_blobs

from sar_train import trainer
from sar_train.config import RunConfig
from sar_train.experiment import code
from sar_train.experiment.execute import execute, keep_or_remove, run_folder


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
    assert execute(job(config), tmp_path / "run") == first


def test_folders_are_kept_or_removed(config: RunConfig, tmp_path: Path) -> None:
    folder = run_folder(job(config), tmp_path, "abc")
    assert folder.name == ".coop+sar-4shots-s1-abc"
    for kept in (None, tmp_path / "kept"):
        folder.mkdir(parents=True)
        (folder / "prompts").write_text("x")
        keep_or_remove(folder, kept)
        assert not folder.exists()
    assert (tmp_path / "kept" / "prompts").is_file()
