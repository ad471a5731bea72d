from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.exported import moved, source_of
from support.tiny import VIT, register, tiny_backbone

from sar_infer.bundle.manifest import Quality, Scores
from sar_train.clip.backbone import RANDOM
from sar_train.errors import ConfigError, RunError
from sar_train.export.fixed import Fixed
from sar_train.export.source import (
    APPROXIMATION,
    PER_IMAGE,
    ExportSource,
    from_run,
    from_template,
    measured_quality,
    spoken_phrases,
)
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
    assert source.head_names == ()
    assert source.quality.dataset == "caltech101"
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
    ("phrases", "base", "tables", "notes"),
    [(None, 80.0, ["text-branch"], 0), ({"cat": ("cat",)}, 70.0, [], 1)],
)
def test_the_scores_are_those_of_the_bundle_as_it_will_answer(
    tmp_path: Path, phrases: dict[str, tuple[str]] | None, base: float, tables: list[str], notes: int
) -> None:
    others = {"text-branch": {"base_accuracy": 70.0, "new_accuracy": 60.0, "harmonic_mean": 64.6}}
    folder = saved(run_of(moved("dept"), record=RECORD | {"other_metrics": others}), tmp_path / "run")
    lines: list[str] = []
    source = from_run(folder, phrases, tell=lines.append)
    assert source.quality.metrics.base_accuracy == base
    assert list(source.quality.tables) == tables
    assert len(lines) == notes
    assert bool(source.head_names) == (not notes)


OTHER = {"base_accuracy": 70.0, "new_accuracy": 62.0, "harmonic_mean": 65.8}
FULL = RECORD | {"other_metrics": {TEXT_BRANCH: OTHER, MEAN_IMAGE: OTHER}}
AS_TRAINED = Scores(80.0, 60.0, 68.6)


def quality(record: dict[str, Any], **ways: str) -> Quality:
    return measured_quality(Run({}, "x", record=record), **ways)


@pytest.mark.parametrize(
    ("record", "ways", "metrics", "tables"),
    [
        (FULL, {}, AS_TRAINED, {}),
        (RECORD, {}, AS_TRAINED, {}),
        (FULL, {"beside": TEXT_BRANCH}, AS_TRAINED, {TEXT_BRANCH: OTHER}),
        (RECORD, {"beside": TEXT_BRANCH}, AS_TRAINED, {}),
        (FULL, {"alone": TEXT_BRANCH}, Scores(**OTHER), {}),
        (RECORD, {"alone": TEXT_BRANCH}, Scores(), {}),
        (FULL, {"alone": MEAN_IMAGE, "beside": PER_IMAGE}, Scores(**OTHER), {PER_IMAGE: vars(AS_TRAINED)}),
        (RECORD, {"alone": MEAN_IMAGE, "beside": PER_IMAGE}, Scores(), {PER_IMAGE: vars(AS_TRAINED)}),
    ],
)
def test_the_quality_is_that_of_the_record(
    record: dict[str, Any], ways: dict[str, str], metrics: Scores, tables: dict[str, Any]
) -> None:
    stated = quality(record, **ways)
    assert (stated.dataset, stated.protocol, stated.shots, stated.seeds) == ("caltech101", "base-to-new", 16, (3,))
    assert (stated.metrics, stated.zero_shot, stated.tables) == (metrics, Scores(60.7), tables)
    assert stated.notes == ((APPROXIMATION,) if ways.get("alone") == MEAN_IMAGE else ())


def test_a_run_without_a_record() -> None:
    assert quality({}) == Quality()
    assert quality({}, alone=MEAN_IMAGE, beside=PER_IMAGE) == Quality(notes=(APPROXIMATION,))


@pytest.mark.parametrize("missing", ["metrics", "zero_shot", "dataset", "config", "seed"])
def test_an_incomplete_record_is_named(missing: str) -> None:
    with pytest.raises(RunError, match=f"lacks '{missing}'"):
        quality({key: value for key, value in FULL.items() if key != missing})


# --------------------------------------------------------------------------------------------------------------- head
TRAINED = ("cat", "sea_lake", "Red car")
BANK = {"dog": ("dog",), "CAT": ("cat",), "red car": ("red car",), "sea lake": ("sea lake",)}


def test_a_heads_logits_are_those_of_the_layers_that_were_trained() -> None:
    """Every trained class stands in the bank for itself, in whatever spelling."""
    prompted = moved("dept", names=TRAINED, mix=0.6, feature_length=7.0)
    source, method = ExportSource(prompted, BANK, "dept"), prompted.method
    head = source.head("e" * 64)
    assert head is not None
    assert source.head_names == head.names == ("CAT", "sea lake", "red car")
    assert (head.mix, head.encoder_digest) == (0.6, "e" * 64)
    features = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    expected = method.linear(method.scale["image"] * 7.0 * features + method.shift["image"])
    np.testing.assert_allclose(head.logits(features.numpy()), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "names", "phrases"),
    [
        ("dept", TRAINED, {name: BANK[name] for name in ("CAT", "red car")}),
        ("dept", TRAINED, BANK | {"red car": ("car",)}),
        ("dept", TRAINED, BANK | {"red car": ("red car", "car")}),
        ("dept", ("cat", "Cat", "sea lake"), BANK),
        ("coop", TRAINED, BANK),
    ],
)
def test_otherwise_there_is_no_head(method: str, names: tuple[str, ...], phrases: dict[str, tuple[str, ...]]) -> None:
    source = ExportSource(moved(method, names=names), phrases, method)
    assert (source.head_names, source.head("e" * 64)) == ((), None)
