"""From a decoded image to the encoder's input, in two steps that training and run time share.

``normalise`` makes every image upright 8-bit RGB; ``to_input`` then does exactly what open_clip's evaluation transform
does to such an image: resize, crop or pad, scale to 0..1, normalise.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import Preprocess

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of an image's width and height."""
CROPS: tuple[Box, ...] = (
    (0.0, 0.0, 1.0, 1.0),
    (0.0, 0.0, 0.5, 0.5),
    (0.5, 0.0, 1.0, 0.5),
    (0.0, 0.5, 0.5, 1.0),
    (0.5, 0.5, 1.0, 1.0),
)
"""An image and its quarters, in which several classes are looked for; a side of a half rounds up."""
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
_EXIF = ("exif", "Raw profile type exif")
"""Where Pillow finds EXIF data; ImageMagick writes the second into PNGs, as text."""
_LARGEST_EXIF = 2**20
"""Bytes. Cameras write less than 64 KiB."""
_BAND_PIXELS = 2**18
_ROUNDED: dict[str, Callable[[float], int]] = {"round": round, "floor": math.floor}
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def normalise(image: Image.Image, fill: int = 0) -> Image.Image:
    """Return an image as upright 8-bit RGB.

    EXIF orientation is applied. Transparency, also that of palettes, is laid on the grey level ``fill`` (0..255).
    16-bit grey is divided by 257; wider integers are clipped to 16 bits first. Floating point is read as 0..1 if
    nothing exceeds 1, otherwise as 0..255. Everything else is converted to RGB by Pillow.

    At most 8 bytes a pixel are needed, including the given image, if the caller keeps no reference to it.

    Raises:
        ValueError: Pillow has no conversion from this mode.
    """
    turn = _turn(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _grey(image, fill)
    if image.has_transparency_data:
        image = _opaque(image, fill)
    elif image.mode != "RGB":
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def pixel_digest(image: Image.Image) -> bytes:
    """Return the SHA-256 of an RGB image's size and pixels, which no encoding of them changes."""
    digest = hashlib.sha256(f"{image.width} x {image.height}".encode())
    for _, band in _bands(image):
        digest.update(band.tobytes())
    return digest.digest()


def to_input(image: Image.Image, spec: Preprocess) -> Floats:
    """Return the encoder's input (3, size, size) for an RGB image: resized, cropped or padded, scaled."""
    colours = np.asarray(_fit(image, spec))
    result = np.empty((3, *colours.shape[:2]), dtype=np.float32)
    for channel, table in enumerate(_tables(spec.mean, spec.std)):
        np.take(table, colours[:, :, channel], out=result[channel], mode="clip")  # "raise" would make a copy
    return result


def images_together(inputs: int, *, several: bool) -> int:
    """Return the images that make at most so many inputs of an encoder, at least one, with all crops of each or not."""
    return max(1, inputs // len(CROPS)) if several else inputs


def crops_to_input(image: Image.Image, spec: Preprocess) -> Floats:
    """Return the encoder's inputs (5, 3, size, size) for the `CROPS` of an RGB image."""
    width, height = image.size
    boxes = (
        (math.floor(left * width), math.floor(top * height), math.ceil(right * width), math.ceil(bottom * height))
        for left, top, right, bottom in CROPS
    )
    return np.stack([to_input(image.crop(box), spec) for box in boxes])


@functools.cache
def _tables(mean: tuple[float, ...], std: tuple[float, ...]) -> Floats:
    """Return what each of the 256 values of each channel becomes (3, 256); a lookup takes a third of the time."""
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    columns = (np.array(values, dtype=np.float32)[:, np.newaxis] for values in (mean, std))
    result: Floats = (scaled - next(columns)) / next(columns)
    return result


def _turn(image: Image.Image) -> Image.Transpose | None:
    if any(len(image.info.get(key) or b"") > _LARGEST_EXIF for key in _EXIF):
        return None  # hostile: a tag may grow to 30 times its size
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data raises almost anything, and the pixels may be sound
        return None


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in bands of whole rows, each with its first row, for steps that need much memory per pixel."""
    height = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, height):
        yield top, image.crop((0, top, image.width, min(top + height, image.height)))


def _opaque(image: Image.Image, fill: int) -> Image.Image:
    """Lay transparency on a grey level."""
    canvas = Image.new("RGB", image.size, (fill, fill, fill))
    for top, band in _bands(image):
        colours = band.convert("RGBA")
        canvas.paste(colours, (0, top), colours)
    return canvas


def _grey(image: Image.Image, fill: int) -> Image.Image:
    """Reduce wide grey to 8 bits, with ``fill`` for the one level that a PNG may call transparent."""
    hidden = image.info.get("transparency")
    unit = image.mode == "F" and all(_finite(band).max() <= 1 for _, band in _bands(image))
    result = np.empty((image.height, image.width), dtype=np.uint8)
    for top, band in _bands(image):
        rows = result[top : top + band.height]
        rows[:] = _to_bytes(band, unit)
        if isinstance(hidden, int):
            rows[np.asarray(band) == hidden] = fill
    return Image.fromarray(result)


def _to_bytes(band: Image.Image, unit: bool) -> npt.NDArray[np.uint8]:
    if band.mode == "F":
        values = _finite(band)
        result: npt.NDArray[np.uint8] = np.clip(np.rint(values * 255 if unit else values), 0, 255).astype(np.uint8)
    else:
        whole = np.clip(np.asarray(band), 0, 65535).astype(np.uint32)
        result = ((whole + 128) // 257).astype(np.uint8)  # rounds like rint(v / 257), in a third of the memory
    return result


def _finite(band: Image.Image) -> Floats:
    result: Floats = np.nan_to_num(np.asarray(band))
    return result


def _fit(image: Image.Image, spec: Preprocess) -> Image.Image:
    """Resize to ``spec.size`` and crop or pad to a square; sizes are rounded as in torchvision and timm."""
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
    left, top = (_ROUNDED[spec.crop]((side - size) / 2) for side in target)
    return image.crop((left, top, left + size, top + size))


def _pad(image: Image.Image, size: int, fill: int) -> Image.Image:
    canvas = Image.new("RGB", (size, size), (fill, fill, fill))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return canvas
