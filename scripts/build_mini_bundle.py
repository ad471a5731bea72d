"""Make ``exports/mini``, the bundle that ships: prompts learned on Caltech101, a bank of ImageNet's 1,000 names.

    python scripts/build_mini_bundle.py ../shared/data/imagenet_sample

Learns a prompt with SAR on all classes of the shipped Caltech101 features, and one without, with the settings of
``experiments/mini_bundle.toml``; classifies one photo of each ImageNet class (PHOTOS, in class order) under the
hand-crafted template, under CoOp's prompt and under CoOp + SAR's; exports the last with all three in its `quality`. It
refuses a prompt that loses more than 2 points against the hand-crafted one. The photos come from ImageNet's training
set, so the image tower has probably seen them; its manifest says so.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input
from sar_train.clip.backbone import Backbone
from sar_train.config.run import RunConfig, build, merge
from sar_train.data.dataset import DataOptions
from sar_train.data.opening import open_features
from sar_train.export.bundle import export_bundle
from sar_train.export.source import from_run
from sar_train.training import trainer
from sar_train.training.checkpoint import Run
from sar_train.training.prompted import PromptedCLIP, handcrafted, restore

ROOT = Path(__file__).resolve().parent.parent
MOST_LOST = 2.0
NOTE = "imagenet_sample: one photo of each class from ImageNet's training set, which the image tower has probably seen"


def main() -> None:
    """Train twice, compare, export."""
    photos = sorted(p for p in Path(sys.argv[1]).iterdir() if p.suffix == ".jpg")
    common = tomllib.loads((ROOT / "experiments" / "mini_bundle.toml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: _train(Path(folder) / name, common, sar=sar) for name, sar in (("coop", False), ("sar", True))}
        source = from_run(Path(folder) / "sar", {name: (name,) for name in IMAGENET_CLASSNAMES})
    backbone = source.backbone
    images = _encode(backbone, photos)
    ways = {
        "hand-crafted": handcrafted(backbone, runs["sar"].template),
        "CoOp": restore(runs["coop"], backbone),
        "CoOp + SAR": source.prompted,
    }
    imagenet = {name: _top1(images, prompted) for name, prompted in ways.items()}
    caltech = {name: _caltech(prompted) for name, prompted in ways.items()}
    print("top-1 on imagenet_sample:", imagenet, "on Caltech101's test photos:", caltech)
    lost = imagenet["hand-crafted"] - imagenet["CoOp + SAR"]
    if lost > MOST_LOST:
        sys.exit(
            f"the prompt loses {lost:.1f} points against the hand-crafted one, more than {MOST_LOST}: not exported"
        )
    quality = dataclasses.replace(
        source.quality, notes=(NOTE,), tables={"imagenet_sample_top1": imagenet, "caltech101_test_top1": caltech}
    )
    manifest = export_bundle(
        dataclasses.replace(source, quality=quality),
        ROOT / "exports" / "mini",
        command="python scripts/build_mini_bundle.py PHOTOS",
        photos=photos[::5],
        overwrite=True,
        tell=print,
    )
    print(manifest.quality.parity)


def _train(out: Path, common: dict[str, object], *, sar: bool) -> Run:
    settings = merge(common, {} if sar else {"sar": False})
    return trainer.run(build(RunConfig, settings, out.name), out, tell=print)


def _encode(backbone: Backbone, photos: list[Path]) -> Tensor:
    embeddings = []
    for start in range(0, len(photos), 50):
        pixels = [to_input(load_rgb(p), backbone.preprocess) for p in photos[start : start + 50]]
        embeddings.append(backbone.encode_images(torch.from_numpy(np.stack(pixels))))
    return torch.cat(embeddings)


def _top1(images: Tensor, prompted: PromptedCLIP) -> float:
    predicted = (images @ prompted.embed(IMAGENET_CLASSNAMES).T).argmax(1)
    return round(100 * float((predicted == torch.arange(len(images))).double().mean()), 2)


def _caltech(prompted: PromptedCLIP) -> float:
    features = open_features("demo", prompted.backbone, DataOptions())
    predicted = (features.plain("test") @ prompted.embed(features.dataset.class_names).T).argmax(1)
    return round(100 * float((predicted == features.labels("test")).double().mean()), 2)


if __name__ == "__main__":
    main()
