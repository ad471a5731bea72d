"""One run from its settings to its result."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.blobs import write_blobs
from support.jobs import job
from support.photos import write_folder
from support.problems import BASE, CLASSES, TEMPLATE
from support.tiny import tiny_backbone

from sar_infer.images.preprocess import to_input
from sar_infer.storage.files import locked
from sar_train.config.run import RunConfig
from sar_train.errors import RunError
from sar_train.experiment import code
from sar_train.experiment.execute import check_zero_shot, evaluate_targets, execute, similarities
from sar_train.methods.base import Setup, methods
from sar_train.training import checkpoint, trainer
from sar_train.training.prompted import PromptedCLIP, restore


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return write_blobs(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Return the result of a run and its folder."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return execute(job(config, data_root="/private"), folder), folder


def test_a_result_is_the_record_and_more(config: RunConfig, finished: tuple[dict[str, Any], Path]) -> None:
    content, folder = finished
    record = json.loads((folder / checkpoint.RECORD).read_text())
    assert {key: content[key] for key in ("metrics", "history")} == {key: record[key] for key in ("metrics", "history")}
    assert (content["protocol"], content["name"], content["code"]) == ("base-to-new", "coop+sar", code.identity())
    assert content["key"] == job(config).key(code.identity()["digest"])
    assert (content["similarities"]["base"], len(content["similarities"]["names"])) == (4, 8)
    assert content["targets"] is content["zero_shot_check"] is None
    assert "/private" not in json.dumps(content), "where things are on this machine is nobody's business"


def test_a_finished_run_is_not_trained_again(
    config: RunConfig, finished: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[1], tmp_path / "run")
    before = (run / checkpoint.PROMPTS).stat().st_mtime_ns
    assert {**execute(job(config), run), "finished": ""} == {**finished[0], "finished": ""}
    assert (run / checkpoint.PROMPTS).stat().st_mtime_ns == before
    record = json.loads((run / checkpoint.RECORD).read_text())
    del record["dataset"], record["timing"]
    (run / checkpoint.RECORD).write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"record\.json: damaged: "):
        execute(job(config), run)


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
    with locked(tmp_path / "run"), pytest.raises(RunError, match="another sweep"):
        execute(job(config), tmp_path / "run")


def prompted(**settings: object) -> PromptedCLIP:
    kind, backbone = methods.get("coop"), tiny_backbone()
    setup = Setup(backbone, BASE, TEMPLATE, torch.Generator().manual_seed(0))
    return PromptedCLIP(backbone, kind(kind.Config(**settings), setup), TEMPLATE, BASE)


def test_similarities_are_the_cosines_in_thousandths(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = prompted(context_init="")
    content = similarities(learned, BASE, CLASSES[4:])
    assert content is not None
    assert (content["names"], content["base"]) == (list(CLASSES), len(BASE))
    upper = np.triu_indices(len(CLASSES), 1)
    with torch.no_grad():
        rows = {"learned": learned.embed(CLASSES), "handcrafted": learned.backbone.embed_names(CLASSES, TEMPLATE)}
    for name, matrix in rows.items():
        np.testing.assert_allclose(content[name], 1000 * (matrix @ matrix.T).numpy()[upper], atol=0.51)
    assert content["learned"] != content["handcrafted"]
    unchanged = similarities(prompted(), BASE, CLASSES[4:])  # the template is the context
    assert unchanged is not None
    np.testing.assert_allclose(unchanged["learned"], content["handcrafted"], atol=1)
    monkeypatch.setattr("sar_train.experiment.execute.MOST_NAMES", 4)
    few = similarities(prompted(), CLASSES[:6], CLASSES[6:])
    assert few is not None
    assert (few["names"], few["base"]) == ([CLASSES[0], CLASSES[2], CLASSES[4], CLASSES[6]], 3)
    assert similarities(prompted(class_specific=True), BASE, ()) is None  # holds for the trained classes alone
    assert similarities(prompted(), BASE[:2], ()) is None


@pytest.fixture(scope="module")
def trained(finished: tuple[dict[str, Any], Path]) -> PromptedCLIP:
    return restore(checkpoint.load_run(finished[1]), tiny_backbone())


def test_every_photo_of_a_target_is_judged_by_hand(trained: PromptedCLIP, config: RunConfig, tmp_path: Path) -> None:
    target, names = write_folder(tmp_path / "photos", {"fox": 3, "red car": 4, "apple": 5}), ["apple", "fox", "red car"]
    (judged,) = evaluate_targets(trained, config, (str(target),)).values()
    assert (judged["classes"], judged["photos"]) == (3, 12)

    backbone, paths = tiny_backbone(), sorted(target.glob("*/*"))
    truth = np.array([names.index(path.parent.name) for path in paths])
    with torch.no_grad():
        pixels = [to_input(Image.open(path).convert("RGB"), backbone.preprocess) for path in paths]
        images = backbone.encode_images(torch.from_numpy(np.stack(pixels)))
        ways = {"zero_shot": backbone.embed_names(names, "a photo of a {}."), "accuracy": trained.embed(names)}
    for way, rows in ways.items():
        right = (images @ rows.T).argmax(1).numpy() == truth
        assert judged[way] == pytest.approx(100 * right.mean()), way
    assert judged["per_class"] == {name: 100 * right[truth == i].mean() for i, name in enumerate(names)}


# ----------------------------------------------------------------------------------------------- the known zero-shot
REAL = RunConfig("caltech101", backbone="ViT-B-16-quickgelu", pretrained="openai")


def entry(base: float, new: float | None, **changes: Any) -> dict[str, Any]:
    dataset = {"name": "caltech101", "judged_on": "test", "split_origin": "published"} | changes
    return {"dataset": dataset, "zero_shot": {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": 0.0}}


@pytest.mark.parametrize(
    ("base", "new", "difference", "ok"),
    [
        (96.84, 94.00, 0.0, True),
        (96.64, 94.00, -0.2, True),
        (96.63, 94.00, -0.21, False),
        (97.90, 93.70, -0.3, False),
        (99.0, 99.0, 2.16, True),
    ],
)
def test_more_than_a_fifth_of_a_point_below_is_an_error(base: float, new: float, difference: float, ok: bool) -> None:
    check = check_zero_shot(REAL, entry(base, new))
    assert check is not None
    assert (check["difference"], check["ok"]) == (pytest.approx(difference), ok)
    assert check["expected"] == {"base_accuracy": 96.84, "new_accuracy": 94.00}
    assert check["source"]


@pytest.mark.parametrize(
    ("settings", "record"),
    [
        ({"pretrained": "laion2b_s34b_b88k"}, entry(1, 1)),
        ({"backbone": "ViT-L-14"}, entry(1, 1)),
        ({"template": "{}"}, entry(1, 1)),
        ({"base_classes": "deal:1"}, entry(1, 1)),
        ({"allow_missing": True}, entry(1, 1)),
        ({"skip_unreadable": True}, entry(1, 1)),
        ({}, entry(1, None)),
        ({}, entry(1, 1, split_origin="ours")),
        ({}, entry(1, 1, judged_on="val")),
        ({}, entry(1, 1, name="products")),
    ],
)
def test_other_weights_or_data_have_no_known_figure(settings: dict[str, Any], record: dict[str, Any]) -> None:
    assert check_zero_shot(dataclasses.replace(REAL, **settings), record) is None
