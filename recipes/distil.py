"""The distillation of `sar-mini-vit` from end to end: photos in, a model with learned weights out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor, nn

from recipes import photos, vision_tower
from recipes.text_tower import TEMPLATE
from sar_train.clip import backbone, mini
from sar_train.clip.mini import storage
from sar_train.clip.mini.stem import STAGES


def run(root: Path, recipe: vision_tower.Recipe, maps_file: Path | None, say: Callable[[str], None]) -> nn.Module:
    """Carry out a recipe.

    Args:
        root: the folder of the photos.
        recipe: the numbers.
        maps_file: keeps the feature maps between runs; None keeps nothing.
        say: is given lines of progress.

    Raises:
        DataError: no photos, or one that cannot be read.
    """
    original = backbone.load(mini.NAME)
    torch.manual_seed(recipe.seed)
    model = mini.create(mini.VIT_NAME)
    storage.load_shared(model, mini.WEIGHTS)
    files = photos.usable(root)

    def make() -> Tensor:
        progress = _Progress("photo", len(files), 500, say)
        stem, spec = model.visual.conv1, original.preprocess  # type: ignore[union-attr]
        return photos.maps(stem, files, root, spec, n_views=recipe.views, seed=recipe.seed, report=progress)  # type: ignore[arg-type]

    shared = hashlib.sha256(mini.WEIGHTS.read_bytes()).hexdigest()
    maps = photos.kept(maps_file, photos.key(files, root, recipe.views, recipe.seed, shared), make)
    names = original.embed_names(IMAGENET_CLASSNAMES, original.handcrafted(TEMPLATE))
    teacher = vision_tower.Teacher(original.model, STAGES, names)
    progress = _Progress("step", recipe.steps, 50, say)
    vision_tower.train(model, teacher, maps, recipe, lambda step, loss: progress(step, f"  1 - cosine {loss:.4f}"))
    return model


class _Progress:
    """Says every so often how far something is and how long it will take."""

    def __init__(self, what: str, total: int, every: int, say: Callable[[str], None]) -> None:
        self._what, self._total, self._every, self._say = what, total, every, say
        self._start = time.monotonic()

    def __call__(self, i: int, note: str = "") -> None:
        if (i + 1) % self._every == 0 or i + 1 == self._total:
            left = (time.monotonic() - self._start) / (i + 1) * (self._total - i - 1)
            self._say(f"{self._what} {i + 1}/{self._total}{note}  about {left / 60:.0f} min left")
