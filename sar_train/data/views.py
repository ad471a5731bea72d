"""Views of an image: the plain one as at run time, and CoOp's random crops, each the same whenever it is asked for.

A random view depends only on the seed, the image's name and the view's number, so it is the same in any order, on any
thread and in any subset. The crop is RandomResizedCrop's rule (area 0.08 to 1, aspect 3/4 to 4/3, ten tries, then the
middle), resized bicubically and mirrored half of the time.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sar_infer.bundle.manifest import Preprocess
from sar_infer.errors import ImageError
from sar_infer.images.load import load_rgb
from sar_infer.images.preprocess import to_input
from sar_train.errors import DataError

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10


def load(path: Path, spec: Preprocess) -> Image.Image:
    """Load an image as upright RGB, just as `sar_infer` reads it.

    Raises:
        DataError: it cannot be read or decoded; the message names the file.
    """
    try:
        return load_rgb(path, spec.fill)
    except (ImageError, OSError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: {reason}; remove the file, or leave such photos out with --skip-unreadable") from None


def pixels(path: Path, spec: Preprocess, name: str, views: Sequence[int], seed: int) -> npt.NDArray[np.float32]:
    """Return (V, 3, size, size) encoder input for some views of one image.

    Args:
        path: the image.
        spec: the backbone's preprocessing.
        name: the image's name for seeds, its path relative to the dataset.
        views: 0 is the plain view, 1 and above are random.
        seed: of the random views.

    Raises:
        DataError: the image cannot be read.
    """
    image = load(path, spec)
    return np.stack([to_input(random_view(image, spec.size, name, v, seed) if v else image, spec) for v in views])


def random_view(image: Image.Image, size: int, name: str, view: int, seed: int) -> Image.Image:
    """Return one random crop of ``size`` x ``size`` pixels."""
    rng = random.Random(hashlib.sha256(f"{seed}\0{view}\0{name}".encode(errors="surrogateescape")).digest())
    cropped = image.crop(crop_box(image.width, image.height, rng)).resize((size, size), Image.Resampling.BICUBIC)
    return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cropped


def crop_box(width: int, height: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of a random part of an image."""
    for _ in range(TRIES):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    w = max(1, min(width, round(height * RATIO[1])))
    h = max(1, min(height, round(width / RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
