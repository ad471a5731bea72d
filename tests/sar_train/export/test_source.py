from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.exported import moved, source_of
from support.tiny import VIT, register, tiny_backbone

from sar_infer.bundle.manifest import Quality, Scores
from sar_train.clip.backbone import RANDOM
from sar_train.errors import ConfigError, RunError
from sar_train.export.fixed import Fixed
from sar_train.export.source import APPROXIMATION, PER_IMAGE, from_run, from_template, measured_quality, spoken_phrases
from sar_train.training.checkpoint import Run, save_run
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.record import MEAN_IMAGE, TEXT_BRANCH

RECORD: dict[str, Any] = {
    "config": {"protocol": "base-to-new", "shots": 16},
    "dataset": {"name": "caltech101"},
    "seed": 3,
    "metrics": {"base_accuracy": 80.0, "new_accuracy": 60.0, "harmonic_mean": 68.6, "further": 1},
    "zero_shot": {"base_accuracy": 60.7, "new_accuracy": None, "harmonic_mean": None},
}


def run_of(prompted: PromptedCLIP, settings: Mapping[str, Any] | None = None, **known: Any) -> Run:
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
        **known,
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
    assert source.head_names == ()
    assert source.quality.dataset == "caltech101"
    assert source.licences["tokenizer"]


def test_other_class_names_take_the_place_of_the_runs(run: Run, tmp_path: Path) -> None:
    source = from_run(saved(run, tmp_path / "run"), {"pet": ("small_dog", "cat")})
    assert source.phrases == {"pet": ("small dog", "cat")}


@pytest.mark.parametrize(
    ("changes", "given", "fact"),
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
def test_what_does_not_fit_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any], given: dict[str, str], fact: str
) -> None:
    folder = saved(dataclasses.replace(run, **changes), tmp_path / "run")
    with pytest.raises((ConfigError, RunError), match=fact):
        from_run(folder, **given)


def test_a_checkpoint_without_a_backbone_takes_the_one_named(run: Run, tmp_path: Path) -> None:
    bare = Run(run.tensors, "coop")
    source = from_run(saved(bare, tmp_path / "run"), {"cat": ("cat",)}, backbone=VIT, pretrained=RANDOM)
    assert source.backbone.name == VIT
    assert source.quality == Quality()


def test_a_template_without_a_place_for_the_name() -> None:
    register()
    with pytest.raises(ConfigError, match="'a photo'"):
        from_template("a photo", {"cat": ("cat",)}, VIT, RANDOM)


def test_names_are_shown_as_they_are_read() -> None:
    assert spoken_phrases({"Faces_easy": ("face_of  a person",)}) == {"Faces easy": ("face of a person",)}
    twice = {"t_shirt": ("tee", "top"), "t shirt": ("t shirt",)}
    assert spoken_phrases(twice) == {"t shirt": ("tee", "top")}  # as for every other name that is given twice


def test_a_checkpoint_of_the_reference_implementation(tmp_path: Path) -> None:
    register()
    context = torch.randn(16, 32)
    torch.save({"state_dict": {"ctx": context}}, tmp_path / "model.pth.tar-50")
    source = from_run(tmp_path, {"cat": ("cat",)}, backbone=VIT, pretrained=RANDOM)
    assert (source.method, source.settings["n_ctx"]) == ("coop", 16)
    assert torch.equal(source.prompted.method.get_parameter("context"), context)


def test_a_template_is_a_method_like_others() -> None:
    register()
    source = from_template("a {}, a pet.", {"small_cat": ("cat",)}, VIT, RANDOM)
    assert isinstance(source.prompted.method, Fixed)
    assert source.phrases == {"small cat": ("cat",)}
    expected = source.backbone.embed_names(["cat"], "a {}, a pet.")
    assert torch.equal(source.prompted.embed(["cat"]), expected)


def test_contexts_of_the_trained_classes_alone_are_refused(tmp_path: Path) -> None:
    prompted = moved("coop", class_specific=True)
    folder = saved(run_of(prompted, {"class_specific": True}), tmp_path / "run")
    with pytest.raises(RunError, match="coop.class_specific=false"):
        from_run(folder)


OTHERS = {"mean-image": {"base_accuracy": 78.0, "new_accuracy": 61.0, "harmonic_mean": 68.5}}


@pytest.mark.parametrize(
    ("record", "ending"),
    [
        (
            RECORD | {"other_metrics": OTHERS},
            "as trained: .*80.00.*60.00.*mean-image: .*78.00.*61.00",
        ),
        (RECORD, r"80.00 % / new 60.00 %\)$"),
        ({}, "image$"),
    ],
)
def test_a_prompt_for_each_photo_is_not_exported_unasked(tmp_path: Path, record: dict[str, Any], ending: str) -> None:
    folder = saved(run_of(moved("cocoop"), record=record), tmp_path / "run")
    with pytest.raises(ConfigError, match="--approximate mean-image .*" + ending):
        from_run(folder)


@pytest.mark.parametrize(("others", "base"), [({"other_metrics": OTHERS}, 78.0), ({}, None)])
def test_the_prompt_for_the_mean_photo_on_request(tmp_path: Path, others: dict[str, Any], base: float | None) -> None:
    prompted = moved("cocoop")
    folder = saved(run_of(prompted, record=RECORD | others), tmp_path / "run")
    source = from_run(folder, approximate="mean-image")
    assert torch.equal(source.prompted.embed(["cat"]), prompted.embed(["cat"]))
    assert source.quality.metrics.base_accuracy == base
    assert source.quality.tables["per-image"]["base_accuracy"] == 80.0
    assert "approximation" in source.quality.notes[0]


@pytest.mark.parametrize(
    ("phrases", "base", "tables", "told"),
    [(None, 80.0, ["text-branch"], 0), ({"cat": ("cat",)}, 70.0, [], 1)],
)
def test_the_scores_are_those_of_the_bundle_as_it_will_answer(
    tmp_path: Path, phrases: dict[str, tuple[str]] | None, base: float, tables: list[str], told: int
) -> None:
    others = {"text-branch": {"base_accuracy": 70.0, "new_accuracy": 60.0, "harmonic_mean": 64.6}}
    folder = saved(run_of(moved("dept"), record=RECORD | {"other_metrics": others}), tmp_path / "run")
    lines: list[str] = []
    source = from_run(folder, phrases, tell=lines.append)
    assert source.quality.metrics.base_accuracy == base
    assert list(source.quality.tables) == tables
    assert len(lines) == told
    assert bool(source.head_names) == (not told)


OTHER = {"base_accuracy": 70.0, "new_accuracy": 62.0, "harmonic_mean": 65.8}
FULL = RECORD | {"other_metrics": {TEXT_BRANCH: OTHER, MEAN_IMAGE: OTHER}}
AS_TRAINED = Scores(80.0, 60.0, 68.6)


def of(record: dict[str, Any], **given: str) -> Quality:
    return measured_quality(Run({}, "x", record=record), **given)


@pytest.mark.parametrize("record", [FULL, RECORD])
def test_it_says_what_the_record_says(record: dict[str, Any]) -> None:
    found = of(record)
    assert (found.dataset, found.protocol, found.shots, found.seeds) == ("caltech101", "base-to-new", 16, (3,))
    assert (found.metrics, found.zero_shot) == (AS_TRAINED, Scores(60.7))
    assert (found.notes, found.tables) == ((), {})


def test_a_run_without_a_record() -> None:
    assert of({}) == Quality()
    assert of({}, alone=MEAN_IMAGE, beside=PER_IMAGE) == Quality(notes=(APPROXIMATION,))


def test_a_head_and_the_text_branch_beside_it() -> None:
    found = of(FULL, beside=TEXT_BRANCH)
    assert (found.metrics, found.tables) == (AS_TRAINED, {TEXT_BRANCH: OTHER})
    assert of(RECORD, beside=TEXT_BRANCH).tables == {}


def test_the_text_branch_alone() -> None:
    found = of(FULL, alone=TEXT_BRANCH)
    assert (found.metrics, found.tables, found.notes) == (Scores(**OTHER), {}, ())
    assert of(RECORD, alone=TEXT_BRANCH).metrics == Scores()


def test_an_approximation_and_what_is_approximated() -> None:
    found = of(FULL, alone=MEAN_IMAGE, beside=PER_IMAGE)
    assert (found.metrics, found.notes) == (Scores(**OTHER), (APPROXIMATION,))
    assert Scores(**found.tables[PER_IMAGE]) == AS_TRAINED
    assert of(RECORD, alone=MEAN_IMAGE, beside=PER_IMAGE).metrics == Scores()


@pytest.mark.parametrize("missing", ["metrics", "zero_shot", "dataset", "config", "seed"])
def test_an_incomplete_record_is_named(missing: str) -> None:
    with pytest.raises(RunError, match=f"lacks '{missing}'"):
        of({key: value for key, value in FULL.items() if key != missing})
