"""What is refused before anything is trained, and what a setting chooses by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from support.blobs import write_blobs
from support.photos import write_folder, write_photo

from sar_train.clip import backbone
from sar_train.config.run import RunConfig
from sar_train.errors import ConfigError
from sar_train.methods.base import methods
from sar_train.training import trainer
from sar_train.training.checkpoint import load_run
from sar_train.training.context import prepare
from sar_train.training.labels import check_task
from sar_train.training.prompted import restore

OWN = {"coop": {"class_specific": True}}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Published split, so base-to-new unless something else is asked for."""
    blobs = write_blobs(tmp_path_factory.mktemp("blobs"))
    return dataclasses.replace(blobs, protocol="auto", sections={})


def test_held_out_copies_of_photos_that_are_learned_from_are_counted(config: RunConfig, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_folder(tmp_path / "photos" / split, {"apple": 2, "red ball": 2})

    def copies() -> list[str]:
        context = prepare(dataclasses.replace(config, data=str(tmp_path / "photos")))
        return [test for _, (test, _) in check_task(context).copies]

    (first, *others) = sorted((tmp_path / "photos" / "test").rglob("*.png"))
    assert copies() == [str(path) for path in (first, *others)]
    for number, path in enumerate(others, 50):
        write_photo(path, number)
    assert copies() == [str(first)]
    write_photo(first, 49)
    assert copies() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sar": True, "protocol": "all"}, "auxiliary names"),
        ({"sar": False, "protocol": "base-to-new"}, "new classes"),
        ({"sar": False, "protocol": "pseudo"}, "new classes"),
    ],
)
def test_class_specific_contexts_are_refused_where_other_names_come(
    config: RunConfig, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare(dataclasses.replace(config, sections=OWN, **changes))


def test_published_schedules_hold_until_the_user_says_otherwise(config: RunConfig) -> None:
    free = dataclasses.replace(config, method="tcp", learning_rate=None)
    schedule = prepare(dataclasses.replace(free, epochs=None, batch_size=None)).schedule
    assert schedule == methods.get("tcp").schedule
    schedule = prepare(dataclasses.replace(free, learning_rate=0.5)).schedule
    assert (schedule.learning_rate, schedule.epochs, schedule.batch_size) == (0.5, config.epochs, config.batch_size)
    assert (schedule.optimiser, schedule.eps) == ("adam", 1e-3)


def test_zero_shot_keeps_the_datasets_template_where_the_method_has_its_own(config: RunConfig) -> None:
    template = "a photo of a {}, a type of pet."
    plain, other = (
        prepare(dataclasses.replace(config, template=template, method=name)) for name in ("coop", "prograd")
    )
    assert (plain.teacher, other.teacher) == (template, "a type of pet, a photo of a {}.")
    assert plain.template == other.template == template
    base = plain.task.base
    assert base is not None
    torch.testing.assert_close(*(context.zero_shot(base.features, base.class_names) for context in (plain, other)))
    assert (plain.task.handcrafted - other.task.handcrafted).abs().max() > 1e-3


def test_a_run_keeps_the_pair_of_templates_that_it_was_trained_with(config: RunConfig, tmp_path: Path) -> None:
    sections = {"tcp": {"student": "of {}, a pet."}}
    run = trainer.run(dataclasses.replace(config, method="tcp", epochs=1, sections=sections), tmp_path / "run")
    assert (run.template, run.settings["student"]) == ("a photo of a {} .", "of {} , a pet.")
    assert run.record["settings"]["tcp"] == run.settings
    assert (run.record["config"]["template"], run.record["config"]["teacher"]) == ("a photo of a {}.", run.template)
    loaded = load_run(tmp_path / "run")
    rows = restore(loaded, backbone.load(config.backbone, config.pretrained)).embed(["fox"])
    assert rows.isfinite().all()
