"""Backbones small enough to make in a moment: open_clip models of 32 dimensions with weights made by a seed."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import open_clip

from sar_train.clip import backbone
from sar_train.clip.backbone import Backbone

VIT = "tiny-vit"
RESNET = "tiny-resnet"
DEEP = "tiny-deep"
"""Twelve layers in both towers, for which depths are published; all sizes differ."""


def register() -> None:
    """Make open_clip know the tiny models; calling it again does nothing."""
    for name in (VIT, RESNET, DEEP):
        if name not in open_clip.list_models():
            open_clip.add_model_config(Path(__file__).with_name(f"{name}.json"))


def register_quick(folder: Path) -> str:
    """Make open_clip know the tiny vision transformer with QuickGELU, by a file in ``folder``; return its name."""
    register()
    name = f"{VIT}-quickgelu"
    config = open_clip.get_model_config(VIT) | {"quick_gelu": True}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def shallow(name: str, folder: Path) -> str:
    """Make open_clip know a published architecture with few layers, by a file in ``folder``; return its name.

    All widths, heads and sizes stay; so does every kind of layer, also the second one of a ResNet's stage.
    """
    config = open_clip.get_model_config(name)
    layers = config["vision_cfg"]["layers"]
    config["vision_cfg"]["layers"] = [2, 1, 1, 1] if isinstance(layers, list) else 3
    config["text_cfg"]["layers"] = 3
    new = f"shallow-{name}"
    (folder / f"{new}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{new}.json")
    return new


def tiny_backbone(name: str = VIT, seed: int = 0) -> Backbone:
    """A tiny frozen CLIP; the same object for the same arguments."""
    register()
    return _made(name, seed)


@cache
def _made(name: str, seed: int) -> Backbone:
    return backbone.load(name, backbone.RANDOM, seed=seed)
