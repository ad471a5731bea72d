from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.exported import moved, source_of
from support.tiny import VIT, register, tiny_backbone

from sar_infer.bundle.manifest import Quality
from sar_train.clip.backbone import RANDOM
from sar_train.errors import ConfigError, RunError
from sar_train.export.source import (
    APPROXIMATION,
    from_run,
    from_template,
    spoken_phrases,
)
from sar_train.training.checkpoint import Run, save_run
from sar_train.training.prompted import Fixed, PromptedCLIP

RECORD: dict[str, Any] = {
    "config": {"protocol": "base-to-new", "shots": 16},
    "dataset": {"name": "caltech101", "photos": 32, "held_out": 9},
    "seed": 3,
    "metrics": {"base_accuracy": 80.0, "new_accuracy": 60.0, "harmonic_mean": 68.6, "further": 1},
    "zero_shot": {"base_accuracy": 60.7, "new_accuracy": None, "harmonic_mean": None},
    "other_metrics": {},
    "per_class_counts": {"base": {"ant": 4}, "new": None},
}


def run_of(prompted: PromptedCLIP, settings: Mapping[str, Any] | None = None, **fields: Any) -> Run:
    """Return what training leaves of a method on the tiny backbone."""
    return Run(
        prompted.method.state_dict(),
        source_of(prompted, ()).method,
        settings or {},
        VIT,
        RANDOM,
        tiny_backbone().weights_digest,
        prompted.template,
        prompted.trained,
        **fields,
    )


@pytest.fixture
def run() -> Run:
    register()
    return run_of(moved("coop", names=("Faces_easy", "ant")), regularisers={"sar": 1.0}, record=RECORD)


def saved(run: Run, folder: Path) -> Path:
    folder.mkdir()
    save_run(folder, run)
    return folder


def test_a_run_brings_everything(run: Run, tmp_path: Path) -> None:
    source = from_run(saved(run, tmp_path / "run"))
    assert source.backbone.weights_digest == run.weights_digest
    assert source.phrases == {"Faces easy": ("Faces easy",), "ant": ("ant",)}
    assert (source.method, source.settings, source.regularisers) == ("coop", {}, {"sar": 1.0})
    context = source.prompted.method.get_parameter("context")
    assert torch.equal(context, run.tensors["context"])
    quality = source.quality
    assert (quality.dataset, quality.protocol, quality.shots, quality.seeds) == ("caltech101", "base-to-new", 16, (3,))
    assert quality.metrics.base_accuracy == 80.0 and quality.zero_shot.base_accuracy == 60.7
    assert quality.tables == {"photos": {"learned": 32, "base": 4}}
    assert source.licences["tokenizer"]
    named = from_run(tmp_path / "run", {"pet": ("small_dog", "cat")})
    assert named.phrases == {"pet": ("small dog", "cat")}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"class_names": ()}, {}, "--classes"),
        ({"backbone_name": ""}, {}, "--backbone"),
        ({}, {"backbone": "RN50"}, "tiny-vit.*RN50"),
        ({"weights_digest": "0" * 64}, {}, "0" * 12),
        ({"tensors": {"context": torch.zeros(4, 8)}}, {}, r"context .*\(4, 8\)"),
        ({}, {"approximate": "mean-image"}, "--approximate"),
        ({"method": "copo"}, {}, "'coop'"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any], options: dict[str, str], message: str
) -> None:
    folder = saved(dataclasses.replace(run, **changes), tmp_path / "run")
    with pytest.raises((ConfigError, RunError), match=message):
        from_run(folder, **options)


def test_a_checkpoint_without_a_backbone_takes_the_one_named(run: Run, tmp_path: Path) -> None:
    bare = Run(run.tensors, "coop")
    source = from_run(saved(bare, tmp_path / "run"), {"cat": ("cat",)}, backbone=VIT, pretrained=RANDOM)
    assert source.backbone.name == VIT
    assert source.quality == Quality()


def test_names_are_shown_as_they_are_read() -> None:
    assert spoken_phrases({"Faces_easy": ("face_of  a person",)}) == {"Faces easy": ("face of a person",)}
    twice = {"t_shirt": ("tee", "top"), "t shirt": ("t shirt",)}
    assert spoken_phrases(twice) == {"t shirt": ("tee", "top")}  # as for every other name that is given twice


def test_a_template_is_a_method_like_others() -> None:
    register()
    source = from_template("a {}, a pet.", {"small_cat": ("cat",)}, VIT, RANDOM)
    assert isinstance(source.prompted.method, Fixed)
    assert source.phrases == {"small cat": ("cat",)}
    expected = source.backbone.embed_names(["cat"], "a {}, a pet.")
    assert torch.equal(source.prompted.embed(["cat"]), expected)
    with pytest.raises(ConfigError, match="'a photo'"):
        from_template("a photo", {"cat": ("cat",)}, VIT, RANDOM)


def test_contexts_of_the_trained_classes_alone_are_refused(tmp_path: Path) -> None:
    prompted = moved("coop", class_specific=True)
    folder = saved(run_of(prompted, {"class_specific": True}), tmp_path / "run")
    with pytest.raises(RunError, match="coop.class_specific=false"):
        from_run(folder)


OTHERS = {
    "mean-image": {"base_accuracy": 78.0, "new_accuracy": 61.0, "harmonic_mean": 68.5},
    "text-branch": {"base_accuracy": 70.0, "new_accuracy": 60.0, "harmonic_mean": 64.6},
}


def test_a_prompt_for_each_photo_is_exported_on_request_alone(tmp_path: Path) -> None:
    prompted = moved("cocoop")
    others = {"mean-image": OTHERS["mean-image"]}
    folder = saved(run_of(prompted, record=RECORD | {"other_metrics": others}), tmp_path / "run")
    with pytest.raises(ConfigError, match="--approximate mean-image"):
        from_run(folder)
    source = from_run(folder, approximate="mean-image")
    assert torch.equal(source.prompted.embed(["cat"]), prompted.embed(["cat"]))
    assert source.quality.metrics.base_accuracy == 78.0
    assert source.quality.tables["per-image"]["base_accuracy"] == 80.0
    assert APPROXIMATION in source.quality.notes


def test_a_head_is_left_out_and_the_scores_are_those_without_it(tmp_path: Path) -> None:
    others = {"text-branch": OTHERS["text-branch"]}
    folder = saved(run_of(moved("dept"), record=RECORD | {"other_metrics": others}), tmp_path / "run")
    lines: list[str] = []
    source = from_run(folder, tell=lines.append)
    assert source.quality.metrics.base_accuracy == 70.0
    assert lines[0].startswith("without the head of dept") and lines[0] in source.quality.notes


@pytest.mark.parametrize("missing", ["metrics", "zero_shot", "dataset", "config", "seed"])
def test_an_incomplete_record_is_named(run: Run, tmp_path: Path, missing: str) -> None:
    record = {key: value for key, value in RECORD.items() if key != missing}
    with pytest.raises(RunError, match=f"lacks '{missing}'"):
        from_run(saved(dataclasses.replace(run, record=record), tmp_path / "run"))
