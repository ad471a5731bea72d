"""Bundles to serve: the shipped one, and a ViT-B/32 with random weights, since time does not depend on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.serving.servers import ROOT

MINI = ROOT / "exports" / "mini"


def vit(folder: Path) -> Path:
    """The bundle ``folder/vit-b-32``; made when it is not there, which needs torch and takes two minutes."""
    folder = folder.resolve()
    bundle = folder / "vit-b-32"
    if bundle.is_dir():
        return bundle
    import open_clip
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    weights, names = folder / "vit-b-32.pt", folder / "names.txt"
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), weights)
    names.write_text("\n".join(dict.fromkeys(open_clip.IMAGENET_CLASSNAMES)), "utf-8")
    command = [sys.executable, "-c", "from sar_train.cli.export import main; main()"]
    command += ["--handcrafted", "a photo of a {}."]
    command += ["--backbone", "ViT-B-32", "--pretrained", str(weights), "--classes", str(names), "--out", str(bundle)]
    subprocess.run([*command, "--quiet"], check=True, cwd=ROOT)
    weights.unlink()
    return bundle
