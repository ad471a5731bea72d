"""The models: the shipped one, and CLIP's two usual sizes with random weights, since time does not depend on them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VIT = {"vit-b-32": "ViT-B-32", "vit-b-16": "ViT-B-16"}
NAMES = ("sar-mini", *VIT)
_NO_GATE = ("--min-cosine", "0", "--min-agreement", "0")
"""Random weights embed all photos much alike, so that agreement is no measure; only the time of these forms is."""


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
        return ["fp32", *(name for name, forms in sorted(precisions.items()) if forms["image"])]


def prepared(name: str, cache: Path, photos: Path | None) -> Model:
    """A model with its bundle, made in ``cache`` where it is not there; INT8 is chosen and judged by ``photos``."""
    cache.mkdir(parents=True, exist_ok=True)
    plain = ROOT / "exports" / "mini" if name == "sar-mini" else _vit(name, cache)
    model = Model(name, VIT.get(name, name), "random" if name in VIT else "", plain)
    if "int8" in model.precisions or photos is None:
        return model
    smaller = cache / f"{name}-int8"
    arguments = [str(plain), "--precision", "int8", "--photos", str(photos), *(_NO_GATE if name in VIT else ())]
    if not smaller.is_dir() and _made("shrink", *arguments, out=smaller):
        print(f"{name}: no INT8 form could be made", file=sys.stderr)
        return model
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
    if _made("export", *made, "--classes", str(names), out=bundle):
        raise SystemExit(f"{name}: sar-export failed")
    weights.unlink()
    return bundle


def _made(name: str, *arguments: str, out: Path) -> int:
    """Run the command ``sar_train.cli.NAME`` and return its exit code."""
    command = [sys.executable, "-c", f"from sar_train.cli.{name} import main; main()", *arguments, "--out", str(out)]
    return subprocess.run([*command, "--quiet"], check=False, cwd=ROOT).returncode
