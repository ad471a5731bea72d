"""open_clip's own preparation of pictures, which ours must equal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image

from sar_infer.bundle.manifest import Preprocess


def open_clip_transform(spec: Preprocess) -> Callable[[Image.Image], torch.Tensor]:
    """A picture's pixels (3, size, size) for evaluation; skips the test where open_clip is absent."""
    transform: Callable[[Image.Image], torch.Tensor] = pytest.importorskip("open_clip.transform").image_transform(
        spec.size,
        is_train=False,
        mean=spec.mean,
        std=spec.std,
        resize_mode=spec.resize_mode,
        interpolation=spec.interpolation,
        fill_color=spec.fill,
    )
    return transform
