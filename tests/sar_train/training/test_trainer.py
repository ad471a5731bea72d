"""One run from settings to record, on blobs around the tiny backbone."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from support.blobs import write_blobs
from support.photos import write_folder
from support.problems import CLASSES, feature_set
from support.tiny import tiny_backbone

from sar_train.config.run import RunConfig
from sar_train.errors import RunError
from sar_train.evaluation.relations import held_out_names, spearman_of_relations
from sar_train.training import trainer
from sar_train.training.checkpoint import STATE, Run, load_run
from sar_train.training.prompted import restore


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Settings of a run of three epochs on four base classes of blobs; apple is among the new classes too."""
    blobs = write_blobs(tmp_path_factory.mktemp("blobs"), "apple")
    return dataclasses.replace(blobs, protocol="auto", epochs=3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos of each of two classes."""
    return write_folder(tmp_path / "photos", {"apple": 6, "red ball": 6})


@dataclass(frozen=True)
class Finished:
    """A run that was trained once for all tests that look at one."""

    run: Run
    folder: Path
    lines: list[str]


@pytest.fixture(scope="module")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder, lines = tmp_path_factory.mktemp("finished") / "run", list[str]()
    return Finished(trainer.run(config, folder, tell=lines.append), folder, lines)


def interrupt_at(epoch: int, config: RunConfig, out: Path) -> None:
    """Begin a run that saves its state after every epoch, and interrupt it when it tells of one."""

    def interrupt(line: str) -> None:
        if line.startswith(f"epoch {epoch}/"):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "SAVE_EVERY", -1.0)
        trainer.run(config, out, tell=interrupt)


def test_a_record_says_what_was_done_and_what_came_of_it(finished: Finished, config: RunConfig) -> None:
    record = json.loads((finished.folder / "record.json").read_text())
    assert record == json.loads(json.dumps(finished.run.record))
    assert record["config"]["shots"] == 4
    assert record["config"]["protocol"] == "base-to-new"
    assert record["seed"] == 1
    assert record["novel"] == {"source": config.novel, "count": 5, "overlap": 1}
    assert list(record["other_metrics"]) == ["switched", *MODELS]
    for prompt in ("metrics", "zero_shot"):
        scores = record[prompt]
        assert 0 <= scores["base_accuracy"] <= 100
        base, new = scores["base_accuracy"], scores["new_accuracy"]
        assert scores["harmonic_mean"] == pytest.approx(2 * base * new / (base + new) if base + new else 0)
        in_one = record["open"][prompt]["images"]
        assert in_one["base_accuracy"] <= scores["base_accuracy"]
        assert in_one["new_accuracy"] <= scores["new_accuracy"]
        assert in_one["curve"]["base"][0] == pytest.approx(scores["base_accuracy"], abs=0.005)
        assert in_one["curve"]["new"][-1] == pytest.approx(scores["new_accuracy"], abs=0.005)
    assert record["linear_probe"]["base_accuracy"] > 90
    assert record["per_class"]["base"].keys() == set(CLASSES[:4])
    assert sum(record["per_class_counts"]["new"].values()) == 48
    assert len(record["history"]) == 3
    assert record["timing"].keys() == {"prepare_seconds", "train_seconds", "statistics_seconds", "evaluate_seconds"}
    recorded, loaded = (Version(text) for text in (record["versions"]["torch"], torch.__version__))
    assert recorded.public == loaded.public  # not all wheels have the build, such as +cpu, in their name
    assert any("about" in line and "left" in line for line in finished.lines)
    (zero_shot,) = [line for line in finished.lines if line.startswith("zero-shot: base")]
    assert "joint over base and new: base" in zero_shot


def test_the_record_has_sars_own_measure(finished: Finished) -> None:
    """CoOp starts at zero-shot, so its relations are the teacher's before and no longer after."""
    relations = finished.run.record["relations"]
    assert relations["names"] == 300
    assert relations["before"] == pytest.approx(1)
    assert 0 < relations["after"] < 0.9999
    names = held_out_names([*CLASSES[:4], "fox", "boat", "lamp", "grey stone", "bird"], CLASSES[4:])
    teacher = tiny_backbone().embed_names(names, "a photo of a {}.")
    learned = restore(finished.run, tiny_backbone()).embed(names)
    assert relations["after"] == pytest.approx(spearman_of_relations(learned, teacher), abs=1e-6)


MODELS = ["statistics", "statistics-switched", "statistics-handcrafted"]


@pytest.mark.parametrize(
    ("method", "other", "flags"),
    [("dept", "text-branch", {"text_only": True}), ("cocoop", "mean-image", {"frozen": True})],
)
def test_the_record_has_what_a_bundle_may_answer_instead(
    config: RunConfig, tmp_path: Path, method: str, other: str, flags: dict[str, bool]
) -> None:
    changed = dataclasses.replace(config, method=method, shots=2, batch_size=2, epochs=2)
    run = trainer.run(changed, tmp_path / "run")
    record = run.record
    assert list(record["other_metrics"]) == ["switched", other, *MODELS]
    ready, data = restore(run, tiny_backbone()), feature_set()
    test, labels = data.plain("test"), data.labels("test")
    base = labels < 4
    hand, scale = tiny_backbone().embed_names(CLASSES[4:], "a photo of a {}."), tiny_backbone().logit_scale
    for way, chosen in (("metrics", {}), (other, flags)):
        logits = ready.logits(test, CLASSES[:4], **chosen)
        right = (logits[base].argmax(1) == labels[base]).float().mean()
        scores, in_one = (entry if way == "metrics" else entry["other_metrics"] for entry in (record, record["open"]))
        assert scores[way]["base_accuracy"] == pytest.approx(100 * float(right))
        ranking = torch.cat([logits, ready.logits(test, CLASSES[4:], **chosen)], dim=1)
        right = (ranking.argmax(1) == labels)[base].float().mean()
        assert in_one[way]["images"]["base_accuracy"] == pytest.approx(100 * float(right))
        if way == other or method != "dept":  # then it is what a bundle answers that is asked for all names at once
            torch.testing.assert_close(ranking, ready.logits(test, CLASSES, **chosen))
    ranking = torch.cat([ready.logits(test, CLASSES[:4]), scale * test @ hand.T], dim=1)  # switched, with the head
    right = (ranking.argmax(1) == labels)[~base].float().mean()
    assert record["open"]["other_metrics"]["switched"]["images"]["new_accuracy"] == pytest.approx(100 * float(right))
    assert run.settings.keys() == {field.name for field in dataclasses.fields(type(ready.method).Config)}


def test_statistics_of_a_run_that_failed_are_not_taken_for_those_of_the_next(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "fitted_statistics.safetensors").write_bytes(b"saved before the disk was full")
    trainer.run(dataclasses.replace(config, statistics=False, epochs=1), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["prompts.safetensors", "record.json"]


def test_a_run_that_cannot_be_written_ends_before_photos_are_read(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is none"):
        trainer.run(dataclasses.replace(config, data=str(tmp_path / "no photos")), tmp_path / "file" / "run")


def test_an_unfinished_run_on_photos_that_changed_is_not_taken_up(
    config: RunConfig, photos: Path, tmp_path: Path
) -> None:
    changed, out = dataclasses.replace(config, data=str(photos), views=1, statistics=False), tmp_path / "run"
    interrupt_at(2, changed, out)
    (photos / "apple" / "00.png").rename(photos / "apple" / "new.png")
    with pytest.raises(RunError, match="other photos"):
        trainer.run(changed, out)


def test_an_interrupted_run_on_photos_sees_the_crops_that_a_whole_one_sees(
    config: RunConfig, photos: Path, tmp_path: Path
) -> None:
    brief = {"views": 3, "epochs": 4, "batch_size": 4, "statistics": False}
    changed, out = dataclasses.replace(config, data=str(photos), method="maple", **brief), tmp_path / "run"
    interrupt_at(3, changed, out)
    with pytest.raises(RunError, match="seed was 1, now 2; epochs was 4, now 5"):
        trainer.run(dataclasses.replace(changed, epochs=5, seed=2), out)
    lines: list[str] = []
    resumed = trainer.run(changed, out, tell=lines.append)
    assert "taking up the run after epoch 2" in lines
    lines.clear()
    whole = trainer.run(changed, tmp_path / "whole", tell=lines.append)
    assert [" s left" in line for line in lines if line.startswith("epoch")] == [False, True, True, False]
    assert resumed.record["history"] == whole.record["history"]
    assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in resumed.tensors.items())


@pytest.mark.parametrize(("rate", "epochs", "said"), [(1e30, 3, "loss of epoch 2"), (1e13, 2, "embeddings")])
def test_a_run_that_diverges_says_so_and_leaves_nothing(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, epochs: int, said: str
) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0)
    line = rf"training diverged: .*{said}.* not finite at --learning-rate {re.escape(f'{rate:g}')}; take a smaller one$"
    with pytest.raises(RunError, match=line):
        trainer.run(dataclasses.replace(config, epochs=epochs, learning_rate=rate), tmp_path / "run")
    assert not (tmp_path / "run").exists()


KILLED = """
import json, sys, time
path, config = json.loads(sys.argv[2])
sys.path[:0] = path
from support.tiny import register
register()
from pathlib import Path
from sar_train.config.run import RunConfig
from sar_train.training import trainer
trainer.SAVE_EVERY = -1.0
trainer.run(RunConfig(**config), Path(sys.argv[1]), tell=lambda line: time.sleep(600 * line.startswith("epoch 3/")))
"""
"""A program that saves the state of a run after each epoch, and stops in the third."""


def test_a_killed_run_goes_on_to_the_same_bits(finished: Finished, config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out), json.dumps([sys.path, dataclasses.asdict(config)])]
    )
    deadline = time.monotonic() + 120
    while not (out / STATE).is_file() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    with pytest.raises(RunError, match="not finished"):
        load_run(out)
    lines: list[str] = []
    resumed = trainer.run(config, out, tell=lines.append, overwrite=True)  # there is no finished run to replace
    assert any(line.startswith("taking up the run after epoch") for line in lines)
    assert torch.equal(resumed.tensors["context"], finished.run.tensors["context"])
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in finished.folder.iterdir())
