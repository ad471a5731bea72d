"""The models: the shipped one, and CLIP's two usual sizes with random weights, since time does not depend on them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
VIT = {"vit-b-32": "ViT-B-32", "vit-b-16": "ViT-B-16"}
NAMES = ("sar-mini", *VIT)


@dataclass(frozen=True)
class Model:
    """A model that both sides run.

    Attributes:
        name: In the table.
        backbone: open_clip's name.
        pretrained: As ``sar_train.clip.backbone.load`` takes it; empty where weights ship.
        bundle: Folder in fp32, with an INT8 form where one could be made.
    """

    name: str
    backbone: str
    pretrained: str
    bundle: Path

    @property
    def precisions(self) -> list[str]:
        """Return the precisions of the bundle's image encoder."""
        precisions = json.loads((self.bundle / "manifest.json").read_text("utf-8"))["precisions"]
        return ["fp32", *sorted(precisions)]


def prepared(name: str, cache: Path, photos: Path | None) -> Model:
    """A model with its bundle, made in ``cache`` where it is not there; INT8 is chosen and judged by ``photos``."""
    cache.mkdir(parents=True, exist_ok=True)
    plain = ROOT / "exports" / "mini" if name == "sar-mini" else _vit(name, cache)
    model = Model(name, VIT.get(name, name), "random" if name in VIT else "", plain)
    if "int8" in model.precisions or photos is None:
        return model
    smaller = cache / f"{name}-int8"
    if not smaller.is_dir():
        from sar_train.export import shrink

        # random weights embed all photos much alike, so that agreement is no measure
        with mock.patch.multiple(shrink, LEAST_COSINE=-1, LEAST_AGREEMENT=0):
            shrink.shrink(plain, smaller, sorted(photos.glob("*.jpg")), ["int8"], command="benchmarks.throughput")
    return Model(name, model.backbone, model.pretrained, smaller)


def _vit(name: str, cache: Path) -> Path:
    bundle = cache / name
    if bundle.is_dir():
        return bundle
    import open_clip
    import torch

    from sar_train.clip import backbone

    weights, names = cache / f"{name}.pt", cache / "names.txt"
    torch.save(backbone.load(VIT[name], backbone.RANDOM).model.state_dict(), weights)
    names.write_text("\n".join(dict.fromkeys(open_clip.IMAGENET_CLASSNAMES)), "utf-8")
    made = ("--handcrafted", "a photo of a {}.", "--backbone", VIT[name], "--pretrained", str(weights))
    command = [
        sys.executable,
        "-c",
        "from sar_train.cli.export import main; main()",
        *made,
        "--classes",
        str(names),
        "--out",
        str(bundle),
    ]
    subprocess.run([*command, "--quiet"], check=True, cwd=ROOT)
    weights.unlink()
    return bundle
