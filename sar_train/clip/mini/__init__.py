"""`sar-mini` and `sar-mini-vit`, the small backbones that ship with the package: configurations and weights.

They are for demonstration and tests, no rivals of ViT-B/16; ``MODEL_CARD.md`` next to this file describes them, and the
repository's ``recipes/`` makes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
from torch import nn

NAME = "sar-mini"
VIT_NAME = "sar-mini-vit"
"""The same text tower with a vision transformer, for methods that prompt one."""
NAMES = (NAME, VIT_NAME)
WEIGHTS = Path(__file__).parent / f"{NAME}.safetensors"
VIT_WEIGHTS = Path(__file__).parent / f"{VIT_NAME}.safetensors"
"""The learned part of ``sar-mini-vit``; the rest of it is read from ``WEIGHTS``."""
LOGIT_SCALE = 21.0
"""Multiplier of the cosine: the best likelihood on validation images of Caltech101's base classes, which the image
tower has not seen (``python -m recipes check``)."""
RATE_FACTOR = 10.0
"""Published learning rates are for a logit scale of 100; ``experiments/lr.toml`` finds ten times CoOp's here."""
PREPROCESS: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def register() -> None:
    """Make open_clip know the names of the shipped backbones; calling it again does nothing."""
    for name in NAMES:
        if name not in open_clip.list_models():
            open_clip.add_model_config(Path(__file__).parent / f"{name}.json")


def scaled_rate(backbone: str, rate: float, optimiser: str) -> float:
    """Return a published rate, times `RATE_FACTOR` for our backbones; not for Adam, whose steps ignore scale."""
    return RATE_FACTOR * rate if backbone in NAMES and optimiser == "sgd" else rate


def create(name: str = NAME) -> nn.Module:
    """Make an open_clip model of one of ``NAMES`` with random weights."""
    from sar_train.clip.mini.stem import Stem

    register()
    model: nn.Module = open_clip.create_model(name, force_preprocess_cfg=PREPROCESS)
    if name == VIT_NAME:
        visual: Any = model.visual
        visual.conv1 = Stem(visual.conv1.out_channels)
    return model


def load_weights(model: nn.Module, name: str = NAME) -> None:
    """Fill a model that ``create(name)`` made with the shipped weights."""
    from sar_train.clip.mini import storage

    if name == VIT_NAME:
        storage.load_vit(model, WEIGHTS, VIT_WEIGHTS)
    else:
        storage.load(model, WEIGHTS)
