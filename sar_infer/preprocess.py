"""From any decoded picture to the encoder's input, in two steps that training and run time share.

``normalise`` makes every picture upright 8-bit RGB; ``to_input`` then does exactly what open_clip's evaluation
transform does to such a picture: resize, crop or pad, scale to 0..1, normalise.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from sar_infer.artefact import Preprocess

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def normalise(image: Image.Image, fill: int = 0) -> Image.Image:
    """Upright 8-bit RGB.

    EXIF orientation is applied. Transparency, also that of palettes, is laid on the grey level ``fill`` (0..255).
    16-bit grey is divided by 257; wider integers are clipped to 16 bits first. Floating point is read as 0..1 where
    nothing exceeds 1, else as 0..255. Everything else is what Pillow's conversion to RGB gives.

    Raises:
        ValueError: Pillow knows no conversion from this mode.
    """
    image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, (fill, fill, fill))
        canvas.paste(image, mask=image)
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def least_side(spec: Preprocess) -> int | None:
    """Short side in pixels that decoding a large JPEG must leave; None where it is decoded in full."""
    return None if spec.jpeg_margin is None else math.ceil(spec.jpeg_margin * spec.size)


def to_input(image: Image.Image, spec: Preprocess) -> npt.NDArray[np.float32]:
    """The encoder's input (3, size, size) for an RGB picture."""
    colours = np.asarray(_fit(image, spec))
    result = np.empty((3, *colours.shape[:2]), dtype=np.float32)
    for channel, table in enumerate(_tables(spec.mean, spec.std)):
        np.take(table, colours[:, :, channel], out=result[channel], mode="clip")  # "raise" would go by way of a copy
    return result


@functools.cache
def _tables(mean: tuple[float, ...], std: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """What each of the 256 values of each channel becomes (3, 256); looked up, it costs a third of computing it."""
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    columns = (np.array(values, dtype=np.float32)[:, np.newaxis] for values in (mean, std))
    result: npt.NDArray[np.float32] = (scaled - next(columns)) / next(columns)
    return result


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data raises almost anything and says nothing about the pixels
        turn = None
    return image if turn is None else image.transpose(turn)


def _to_bytes(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
        scaled = values * 255 if values.max(initial=0) <= 1 else values
        result: npt.NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    else:
        whole = np.clip(values, 0, 65535).astype(np.uint32)
        result = ((whole + 128) // 257).astype(np.uint8)  # rounds as rint(v / 257) does, which needs thrice the memory
    return result


def _fit(image: Image.Image, spec: Preprocess) -> Image.Image:
    """Resize to ``spec.size`` and crop or pad to a square; sizes are rounded as torchvision and timm round them."""
    width, height = image.size
    size = spec.size
    if spec.resize_mode == "squash":
        target = (size, size)
    elif spec.resize_mode == "shortest":
        target = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    else:
        ratio = max(width / size, height / size)
        target = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    if target != image.size:
        image = image.resize(target, _FILTERS[spec.interpolation])
    if spec.resize_mode == "longest":
        return _pad(image, size, spec.fill)
    left, top = round((target[0] - size) / 2), round((target[1] - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _pad(image: Image.Image, size: int, fill: int) -> Image.Image:
    canvas = Image.new("RGB", (size, size), (fill, fill, fill))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return canvas
