"""One run from settings to record, on blobs around the tiny backbone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from support.photos import write_folder
from support.problems import CLASSES, feature_set
from support.regularisers import seven
from support.tiny import VIT, register, tiny_backbone

from sar_train.clip import backbone
from sar_train.config.run import RunConfig
from sar_train.data.feature_file import save_features
from sar_train.errors import ConfigError, RunError
from sar_train.evaluation.relations import held_out_names, spearman_of_relations
from sar_train.training import trainer
from sar_train.training.checkpoint import load_run, load_state
from sar_train.training.context import prepare
from sar_train.training.prompted import restore

SECTIONS = {"sar": {"subset": 4}}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register()
    path = tmp_path_factory.mktemp("features") / "blobs.safetensors"
    save_features(feature_set(), path)
    return path


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names") / "novel.txt"
    path.write_text("fox\nboat\nlamp\ngrey stone\nbird\napple\n")
    return path


def settings(features: Path, novel: Path, **changes: object) -> RunConfig:
    plain = RunConfig(
        data=str(features),
        backbone=VIT,
        pretrained=backbone.RANDOM,
        novel=str(novel),
        shots=4,
        epochs=3,
        learning_rate=0.005,
        batch_size=8,
        quick=True,
        sections=SECTIONS,
    )
    return dataclasses.replace(plain, **changes)


def test_a_record_says_what_was_done_and_what_came_of_it(features: Path, names: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    trainer.run(settings(features, names), tmp_path / "run", tell=lines.append)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["config"]["shots"] == 4
    assert record["config"]["protocol"] == "base-to-new"
    assert record["seed"] == 1
    assert record["novel"] == {"source": str(names), "count": 5, "overlap": 1}  # apple is a new class
    for part in ("metrics", "zero_shot"):
        scores = record[part]
        assert 0 <= scores["base_accuracy"] <= 100
        base, new = scores["base_accuracy"], scores["new_accuracy"]
        assert scores["harmonic_mean"] == pytest.approx(2 * base * new / (base + new) if base + new else 0)
        in_one = record["open"][part]["images"]
        assert in_one["base_accuracy"] <= scores["base_accuracy"]
        assert in_one["new_accuracy"] <= scores["new_accuracy"]
        assert in_one["curve"]["base"][0] == pytest.approx(scores["base_accuracy"], abs=0.005)
        assert in_one["curve"]["new"][-1] == pytest.approx(scores["new_accuracy"], abs=0.005)
    assert record["linear_probe"]["base_accuracy"] > 90
    assert record["per_class"]["base"].keys() == set(CLASSES[:4])
    assert sum(record["per_class_counts"]["new"].values()) == 48
    assert len(record["history"]) == 3
    assert record["timing"].keys() == {"prepare_seconds", "train_seconds", "statistics_seconds", "evaluate_seconds"}
    version, loaded = (Version(text) for text in (record["versions"]["torch"], torch.__version__))
    assert version.public == loaded.public  # not all wheels have the build, such as +cpu, in their name
    assert any("about" in line and "left" in line for line in lines)
    assert any(line.startswith("zero-shot: base") and "one ranking over base and new: base" in line for line in lines)


def test_the_record_has_sars_own_measure(features: Path, names: Path, tmp_path: Path) -> None:
    """CoOp starts at zero-shot, so its relations are the teacher's before and no longer after."""
    run = trainer.run(settings(features, names, sar=False, sections={}, epochs=6), tmp_path / "run")
    relations = run.record["relations"]
    assert relations["names"] == 300
    assert relations["before"] == pytest.approx(1)
    assert 0 < relations["after"] < 0.999
    register()
    again = restore(run, tiny_backbone())
    taken = held_out_names(CLASSES[:4], CLASSES[4:])
    teacher = tiny_backbone().embed_names(taken, "a photo of a {}.")
    assert relations["after"] == pytest.approx(spearman_of_relations(again.embed(taken), teacher), abs=1e-6)


@pytest.mark.parametrize(
    ("method", "other"), [("dept", "text-branch"), ("cocoop", "mean-image"), ("kgcoop", None), ("tcp", None)]
)
def test_the_record_has_what_a_bundle_may_answer_instead(
    features: Path, names: Path, tmp_path: Path, method: str, other: str | None
) -> None:
    run = trainer.run(settings(features, names, method=method, shots=2, batch_size=2, epochs=2), tmp_path / "run")
    record = run.record
    assert list(record["other_metrics"]) == [*([other] if other else []), "statistics"]
    ready, data, backbone = restore(run, tiny_backbone()), feature_set(), tiny_backbone()
    test, labels = data.plain("test"), data.labels("test")
    base = labels < 4
    ways: dict[str, dict[str, bool]] = {"metrics": {}}
    if other:
        ways[other] = {"text_only": True} if method == "dept" else {"frozen": True}
    for key, flags in ways.items():
        logits = ready.logits(test, CLASSES[:4], **flags)
        right = (logits[base].argmax(1) == labels[base]).float().mean()
        scores, in_one = (found if key == "metrics" else found["other_metrics"] for found in (record, record["open"]))
        assert scores[key]["base_accuracy"] == pytest.approx(100 * float(right))
        every = torch.cat([logits, ready.logits(test, CLASSES[4:], **flags)], dim=1)
        right = (every.argmax(1) == labels)[base].float().mean()
        assert in_one[key]["images"]["base_accuracy"] == pytest.approx(100 * float(right))
        if key == other or method != "dept":  # then it is what a bundle answers that is asked for all names at once
            torch.testing.assert_close(every, ready.logits(test, CLASSES, **flags))
    assert run.settings.keys() == {field.name for field in dataclasses.fields(type(ready.method).Config)}
    assert ready.backbone is backbone


@pytest.mark.parametrize("method", ["maple", "promptsrc"])
def test_methods_that_prompt_the_image_tower_see_the_photos(names: Path, tmp_path: Path, method: str) -> None:
    photos = write_folder(tmp_path / "photos", {"bird": 6, "cat": 6, "dog": 6, "red car": 6})
    config = settings(photos, names, method=method, views=2, epochs=3, batch_size=4, protocol="base-to-new")
    run = trainer.run(config, tmp_path / "run")
    ready, context = restore(run, tiny_backbone()), prepare(config)
    part = context.task.base
    pixels = context.features.map_pixels(context.plan.split, part.rows, lambda batch: batch)
    every = ready.logits(ready.encode_images(pixels), ["bird", "cat", "dog", "red car"])
    right = (every.argmax(1) == part.labels).float().mean()
    assert run.record["open"]["metrics"]["images"]["base_accuracy"] == pytest.approx(100 * float(right))
    logits = ready.logits(ready.encode_images(pixels), part.class_names)
    right = (logits.argmax(1) == part.labels).float().mean()
    assert run.record["metrics"]["base_accuracy"] == pytest.approx(100 * float(right))
    untouched = tiny_backbone().encode_images(pixels)
    torch.testing.assert_close(part.features, untouched, atol=1e-5, rtol=0)
    assert (ready.encode_images(pixels) - untouched).abs().max() > 1e-4


def test_training_helps_on_what_it_was_trained_on(features: Path, names: Path, tmp_path: Path) -> None:
    record = trainer.run(settings(features, names, epochs=30, sar=False), tmp_path / "run").record
    assert record["metrics"]["base_accuracy"] > record["zero_shot"]["base_accuracy"] + 20


def test_protocol_all_has_no_new_classes(features: Path, names: Path, tmp_path: Path) -> None:
    record = trainer.run(settings(features, names, protocol="all"), tmp_path / "run").record
    assert record["metrics"]["new_accuracy"] is None
    assert record["metrics"]["harmonic_mean"] is None
    assert record["open"] is None
    assert record["dataset"]["classes"] == list(CLASSES)


def test_the_same_settings_give_the_same_prompt(features: Path, names: Path, tmp_path: Path) -> None:
    first, second = (trainer.run(settings(features, names), tmp_path / n).tensors["context"] for n in "ab")
    assert torch.equal(first, second)


def test_weight_zero_is_no_sar_to_the_bit(features: Path, names: Path, tmp_path: Path) -> None:
    off = trainer.run(settings(features, names, sar=False, sections={}), tmp_path / "off")
    zero = trainer.run(settings(features, names, sections={"sar": {"weight": 0.0}}), tmp_path / "zero")
    assert torch.equal(off.tensors["context"], zero.tensors["context"])


def test_a_finished_run_is_not_overwritten(features: Path, names: Path, tmp_path: Path) -> None:
    trainer.run(settings(features, names, epochs=1), tmp_path / "run")
    with pytest.raises(RunError, match="finished run"):
        trainer.run(settings(features, names, epochs=1), tmp_path / "run")
    trainer.remove(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_statistics_of_a_run_that_failed_are_not_taken_for_those_of_the_next(
    features: Path, names: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    for name in ("fitted_statistics.safetensors", "statistics.safetensors"):  # the second as older versions named it
        (tmp_path / "run" / name).write_bytes(b"saved before the disk was full")
    trainer.run(settings(features, names, statistics=False), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["prompts.safetensors", "record.json"]


def test_settings_of_something_that_is_not_used(features: Path, names: Path) -> None:
    with pytest.raises(ConfigError, match="maple"):
        prepare(settings(features, names, sections={"maple": {"depth": 9}}))


def test_a_run_that_cannot_be_written_ends_before_photos_are_read(names: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is none"):
        trainer.run(settings(tmp_path / "no photos", names), tmp_path / "file" / "run")


@pytest.mark.skipif(os.access("/", os.W_OK), reason="who may write everywhere is not stopped")
def test_a_run_in_a_folder_of_others_ends_before_photos_are_read(names: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="/ cannot"):
        trainer.run(settings(tmp_path / "no photos", names), Path("/no such folder"))


def test_an_unfinished_run_on_photos_that_changed_is_not_taken_up(
    names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_folder(tmp_path / "photos", {"apple": 6, "red ball": 6})
    config, out = settings(photos, names), tmp_path / "run"
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)

    def interrupt(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(config, out, tell=interrupt)
    (photos / "apple" / "00.png").rename(photos / "apple" / "new.png")
    with pytest.raises(RunError, match="other photos"):
        trainer.run(config, out)
    (photos / "apple" / "new.png").rename(photos / "apple" / "00.png")
    lines: list[str] = []
    trainer.run(config, out, tell=lines.append)
    assert "taking up the run after epoch 1" in lines


@pytest.mark.parametrize("method", ["coop", "maple", "promptsrc"])
def test_an_interrupted_run_on_photos_sees_the_crops_that_a_whole_one_sees(
    names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    register()
    photos = write_folder(tmp_path / "photos", {"apple": 6, "red ball": 6})
    config, out = settings(photos, names, method=method, views=3, epochs=4, batch_size=4), tmp_path / "run"
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)

    def interrupt(line: str) -> None:
        if line.startswith("epoch 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(config, out, tell=interrupt)
    with pytest.raises(RunError, match="seed was 1, now 2; epochs was 4, now 5"):
        trainer.run(dataclasses.replace(config, epochs=5, seed=2), out)
    lines: list[str] = []
    resumed = trainer.run(config, out, tell=lines.append)
    assert "taking up the run after epoch 2" in lines
    lines.clear()
    whole = trainer.run(config, tmp_path / "whole", tell=lines.append)
    epochs = [line for line in lines if line.startswith("epoch") and "of fold" not in line]
    assert [" s left" in line for line in epochs] == [False, True, True, False]
    assert resumed.record["history"] == whole.record["history"]
    assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in resumed.tensors.items())


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import support.tiny
support.tiny.register()
from sar_train.training import trainer
from sar_train.config.run import RunConfig
trainer.SAVE_EVERY = 0.0
trainer.run(RunConfig(**{config!r}), Path({out!r}))
"""


@pytest.mark.parametrize(("rate", "epochs", "said"), [(1e30, 3, "loss of epoch 2"), (1e13, 2, "embeddings")])
def test_a_run_that_diverges_says_so_and_leaves_nothing(
    features: Path, names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, epochs: int, said: str
) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0)
    line = rf"training diverged: .*{said}.* not finite at --learning-rate {re.escape(f'{rate:g}')}; take a smaller one$"
    with pytest.raises(RunError, match=line):
        trainer.run(settings(features, names, epochs=epochs, learning_rate=rate), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_killed_run_goes_on_to_the_same_bits(features: Path, names: Path, tmp_path: Path) -> None:
    config = settings(features, names, epochs=120)
    out = tmp_path / "killed"
    code = CHILD.format(path=sys.path, config=dataclasses.asdict(config), out=str(out))
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while load_state(out) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    stored = load_state(out)
    assert stored is not None
    assert 0 < stored[1]["epoch"] < 120, "the kill came too late to test anything"
    with pytest.raises(RunError, match="not finished"):
        load_run(out)
    with pytest.raises(RunError, match="seed was 1, now 2"):
        trainer.run(dataclasses.replace(config, seed=2), out)
    lines: list[str] = []
    resumed = trainer.run(config, out, tell=lines.append, overwrite=True)  # there is no finished run to replace
    assert any(line.startswith("taking up the run after epoch") for line in lines)
    whole = trainer.run(config, tmp_path / "whole")
    assert torch.equal(resumed.tensors["context"], whole.tensors["context"])
    assert sorted(path.name for path in out.iterdir()) == [
        "fitted_statistics.safetensors",
        "prompts.safetensors",
        "record.json",
    ]


def test_another_regulariser_is_trained_with(features: Path, names: Path, tmp_path: Path) -> None:
    with seven():
        run = trainer.run(settings(features, names, epochs=1, sections={"seven": {"weight": 2}}), tmp_path / "run")
    assert run.record["history"][0]["regulariser"] == 7
    assert run.record["settings"]["seven"] == {"weight": 2}
    assert run.regularisers == {"seven": 2}
