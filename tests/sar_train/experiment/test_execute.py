"""One run from its settings to its result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.blobs import write_blobs
from support.jobs import job
from support.photos import needs_shared, write_folder
from support.problems import BASE, CLASSES, TEMPLATE
from support.tiny import tiny_backbone

from sar_infer.images.preprocess import to_input
from sar_train.config.run import RunConfig
from sar_train.errors import RunError, SarTrainError
from sar_train.experiment import code
from sar_train.experiment.execute import evaluate_targets, execute, similarities
from sar_train.methods.base import Setup, methods
from sar_train.training import checkpoint, trainer
from sar_train.training.prompted import PromptedCLIP, restore


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


def test_a_finished_run_is_not_trained_again(config: RunConfig, tmp_path: Path) -> None:
    first = execute(job(config), tmp_path / "run")
    written = (tmp_path / "run" / checkpoint.PROMPTS).stat().st_mtime_ns
    again = execute(job(config), tmp_path / "run")
    assert {**again, "finished": ""} == {**first, "finished": ""}
    assert (tmp_path / "run" / checkpoint.PROMPTS).stat().st_mtime_ns == written
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    del record["dataset"], record["timing"]
    (tmp_path / "run" / "record.json").write_text(json.dumps(record))
    with pytest.raises(
        RunError, match=r"record.json: lacks dataset, timing, which every run writes; delete the folder"
    ):
        execute(job(config), tmp_path / "run")


def test_a_half_trained_run_is_taken_up_although_data_lie_elsewhere_now(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = job(config, sar=False, epochs=3)
    whole = execute(plain, tmp_path / "whole")
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0)

    def interrupt(line: str) -> None:
        if line.startswith("epoch 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(plain.config, tmp_path / "run", tell=interrupt)
    assert checkpoint.load_state(tmp_path / "run") is not None
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
        with pytest.raises(RunError, match="another sweep"):
            execute(job(config), tmp_path / "run")
    finally:
        other.kill()
        other.communicate()
    assert execute(job(config), tmp_path / "run")["metrics"]


def prompted(**settings: object) -> PromptedCLIP:
    kind, backbone = methods.get("coop"), tiny_backbone()
    setup = Setup(backbone, BASE, TEMPLATE, torch.Generator().manual_seed(0))
    return PromptedCLIP(backbone, kind(kind.Config(**settings), setup), TEMPLATE, BASE)


def test_they_are_the_cosines_in_thousandths() -> None:
    learned = prompted(context_init="")
    found = similarities(learned, BASE, CLASSES[4:])
    assert found is not None
    assert (found["names"], found["base"]) == (list(CLASSES), len(BASE))
    upper = np.triu_indices(len(CLASSES), 1)
    with torch.no_grad():
        rows = {"learned": learned.embed(CLASSES).numpy()}
    rows["handcrafted"] = learned.backbone.embed_names(CLASSES, TEMPLATE).numpy()
    for name, matrix in rows.items():
        np.testing.assert_allclose(found[name], 1000 * (matrix @ matrix.T)[upper], atol=0.51)
    assert found["learned"] != found["handcrafted"]


def test_the_template_as_context_changes_nothing() -> None:
    found = similarities(prompted(), BASE, CLASSES[4:])
    assert found is not None
    np.testing.assert_allclose(found["learned"], found["handcrafted"], atol=1)


def test_of_many_names_some_are_kept_from_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_train.experiment.execute.MOST_NAMES", 4)
    found = similarities(prompted(), CLASSES[:6], CLASSES[6:])
    assert found is not None
    assert found["names"] == [CLASSES[0], CLASSES[2], CLASSES[4], CLASSES[6]]
    assert found["base"] == 3


def test_nothing_where_prompts_hold_for_the_trained_classes_or_names_are_too_few() -> None:
    assert similarities(prompted(class_specific=True), BASE, ()) is None
    assert similarities(prompted(), BASE[:2], ()) is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[PromptedCLIP, Path]:
    folder = tmp_path_factory.mktemp("blobs")
    trainer.run(job(write_blobs(folder)).config, folder / "run")
    return restore(checkpoint.load_run(folder / "run"), tiny_backbone()), folder


def test_every_photo_of_a_target_is_judged_by_hand(trained: tuple[PromptedCLIP, Path], tmp_path: Path) -> None:
    prompted, blobs = trained
    target = write_folder(tmp_path / "photos", {"fox": 3, "red car": 4, "apple": 5})
    config = write_blobs(blobs)
    (found,) = evaluate_targets(prompted, config, (str(target),)).values()
    assert (found["classes"], found["photos"]) == (3, 12)

    backbone, names = tiny_backbone(), sorted(["fox", "red car", "apple"])
    files = [(names.index(folder.name), path) for folder in target.iterdir() for path in folder.iterdir()]
    truth = np.array([label for label, _ in files])
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack([load(path) for _, path in files]))
        images = backbone.encode_images(pixels)
        ways = {
            "accuracy": prompted.embed(names),
            "zero_shot": backbone.embed_names(names, "a photo of a {}."),
        }
    for way, rows in ways.items():
        right = (images @ rows.T).argmax(1).numpy() == truth
        assert found[way] == pytest.approx(100 * right.mean()), way
    hits = {name: right[truth == i].mean() for i, name in enumerate(names)}
    assert hits.keys() == found["per_class"].keys()


def load(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return to_input(image.convert("RGB"), tiny_backbone().preprocess)


def test_a_target_that_is_not_there_is_named(trained: tuple[PromptedCLIP, Path]) -> None:
    prompted, blobs = trained
    with pytest.raises(SarTrainError, match="nowhere"):
        evaluate_targets(prompted, write_blobs(blobs), ("/nowhere/at/all",))


@needs_shared
def test_pacs_sketch_has_all_its_photos_judged(trained: tuple[PromptedCLIP, Path]) -> None:
    import dataclasses

    from support.photos import SHARED

    prompted, blobs = trained
    config = dataclasses.replace(write_blobs(blobs), data_root=str(SHARED))
    found = evaluate_targets(prompted, config, ("pacs/sketch",))["pacs/sketch"]
    count = sum(1 for _ in (SHARED / "pacs" / "sketch").glob("*/*.*"))
    assert (found["classes"], found["photos"]) == (7, count)
