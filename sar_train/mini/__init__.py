"""`sar-mini`, the small backbone that ships with the package: its configuration, weights and recipe.

It is a demonstration and test backbone, not a rival of ViT-B/16; ``MODEL_CARD.md`` beside this file says what it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
from torch import nn

NAME = "sar-mini"
CONFIG = Path(__file__).parent / f"{NAME}.json"
WEIGHTS = Path(__file__).parent / f"{NAME}.safetensors"
LOGIT_SCALE = 21.0
"""Multiplier of the cosine: the best likelihood on validation photos of Caltech101's base classes, which the image
tower has not seen (``python -m sar_train.mini check``)."""
RATE_FACTOR = 10.0
"""Published learning rates are for a logit scale of 100; ``experiments/lr.toml`` finds ten times CoOp's here."""
PREPROCESS: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def register() -> None:
    """Make open_clip know the name ``sar-mini``; calling it again does nothing."""
    if NAME not in open_clip.list_models():
        open_clip.add_model_config(CONFIG)


def load_weights(model: nn.Module) -> None:
    """Fill an open_clip model of the name ``sar-mini`` with the shipped weights."""
    from sar_train.mini import storage

    storage.load(model, WEIGHTS)
