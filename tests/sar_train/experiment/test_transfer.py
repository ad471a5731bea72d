"""A learned prompt on other datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.blobs import write_blobs
from support.jobs import job
from support.photos import needs_shared, write_folder
from support.tiny import tiny_backbone

from sar_infer.images.preprocess import to_input
from sar_train.errors import SarTrainError
from sar_train.experiment.transfer import evaluate_targets
from sar_train.training import checkpoint, trainer
from sar_train.training.prompted import PromptedCLIP, restore


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
            "zero_shot": backbone.embed_names(names, backbone.handcrafted("a photo of a {}.")),
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
