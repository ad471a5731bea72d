from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import VIT, register, tiny_backbone

from sar_infer.artefact import Passport
from sar_train.backbone import RANDOM
from sar_train.checkpoint import Run, save_run
from sar_train.errors import ConfigError, RunError
from sar_train.export.source import from_run, from_template, passport, spoken
from sar_train.prompts import Prompts

RECORD: dict[str, Any] = {
    "config": {"protocol": "base-to-new", "shots": 16},
    "dataset": {"name": "caltech101"},
    "seed": 3,
    "metrics": {"base_accuracy": 80.0, "new_accuracy": 60.0, "harmonic_mean": 68.6, "further": 1},
    "zero_shot": {"base_accuracy": 60.7, "new_accuracy": None, "harmonic_mean": None},
}


@pytest.fixture
def run() -> Run:
    register()
    context = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    digest = tiny_backbone().weights_digest
    names = ("Faces_easy", "ant")
    return Run(Prompts(context), "coop", VIT, RANDOM, digest, "a photo of a {}.", names, {"sar": 1.0}, RECORD)


def saved(run: Run, folder: Path) -> Path:
    folder.mkdir()
    save_run(folder, run)
    return folder


def test_a_run_brings_everything(run: Run, tmp_path: Path) -> None:
    source = from_run(saved(run, tmp_path / "run"))
    assert source.backbone.weights_digest == run.weights_digest
    assert source.phrases == {"Faces easy": ("Faces easy",), "ant": ("ant",)}
    assert (source.method, source.template, source.regularisers) == ("coop", None, {"sar": 1.0})
    assert source.passport.dataset == "caltech101"
    assert source.licences["tokenizer"]


def test_other_class_names_take_the_place_of_the_runs(run: Run, tmp_path: Path) -> None:
    source = from_run(saved(run, tmp_path / "run"), {"pet": ("small_dog", "cat")})
    assert source.phrases == {"pet": ("small dog", "cat")}


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"class_names": ()}, {}, "--classes FILE"),
        ({"backbone_name": ""}, {}, "add --backbone"),
        ({}, {"backbone": "RN50"}, "was trained on tiny-vit, not on RN50"),
        ({"weights_digest": "0" * 64}, {}, "was trained on weights 000000000000…"),
        ({"prompts": Prompts(torch.zeros(4, 8)), "weights_digest": ""}, {}, "context vectors of 8 numbers"),
    ],
)
def test_what_does_not_fit_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any], given: dict[str, str], message: str
) -> None:
    folder = saved(dataclasses.replace(run, **changes), tmp_path / "run")
    with pytest.raises((ConfigError, RunError), match=message):
        from_run(folder, **given)


def test_a_checkpoint_without_a_backbone_takes_the_one_named(run: Run, tmp_path: Path) -> None:
    bare = Run(run.prompts, "coop")
    source = from_run(saved(bare, tmp_path / "run"), {"cat": ("cat",)}, backbone=VIT, pretrained=RANDOM)
    assert source.backbone.name == VIT
    assert source.passport == Passport()


def test_a_template_without_a_place_for_the_name() -> None:
    register()
    with pytest.raises(ConfigError, match="expected exactly one"):
        from_template("a photo", {"cat": ("cat",)}, VIT, RANDOM)


def test_passport_says_what_the_record_says(run: Run) -> None:
    found = passport(run)
    assert (found.dataset, found.protocol, found.shots, found.seeds) == ("caltech101", "base-to-new", 16, (3,))
    assert (found.metrics.harmonic_mean, found.zero_shot.new_accuracy) == (68.6, None)


def test_an_incomplete_record_is_named(run: Run) -> None:
    with pytest.raises(RunError, match="lacks 'metrics'"):
        passport(dataclasses.replace(run, record={k: v for k, v in RECORD.items() if k != "metrics"}))


def test_names_are_shown_as_they_are_read() -> None:
    assert spoken({"Faces_easy": ("face_of  a person",)}) == {"Faces easy": ("face of a person",)}
