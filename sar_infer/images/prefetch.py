"""Decoding images to the encoder's input, one at a time or in batches that threads decode ahead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import ImageFile

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import Preprocess
from sar_infer.errors import ImageError
from sar_infer.images.formats import FORMATS
from sar_infer.images.load import MAX_PIXELS, ImageSource, load_rgb, source_name
from sar_infer.images.preprocess import crops_to_input, fit, pixel_digest, scaled
from sar_infer.profile import Profile

Decoded = tuple[str, Floats | ImageError]
"""The name of an input, with what `decode_image` returns or the error that it gave."""
Item = TypeVar("Item")
_MOST_THREADS = 8


def decode_image(
    source: ImageSource,
    spec: Preprocess,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    *,
    several: bool = False,
) -> Floats:
    """Return the encoder's input (3, size, size) for one image, or with ``several`` (5, 3, size, size) for its crops.

    Args:
        source: The image.
        spec: How to prepare it.
        formats: See ``load.load_rgb``.
        max_pixels: See ``load.load_rgb``.
        several: Prepare the crops of `CROPS`.

    Raises:
        ImageError: The image cannot be read.
    """
    if several:
        return crops_to_input(load_rgb(source, spec.fill, formats, max_pixels), spec)
    return scaled(fit(load_rgb(source, spec.fill, formats, max_pixels), spec), spec)


def decode_batches(
    images: Iterable[ImageSource], spec: Preprocess, batch_size: int, profile: Profile, *, several: bool = False
) -> Iterator[list[Decoded]]:
    """Yield batches of at most ``batch_size`` decoded images, in order; the next batch is decoded meanwhile.

    At most two batches are held. An open PIL file is read before the next image is requested, unless the images are a
    sequence: a generator may close the file or move it to the next frame, since the frames of a film are one object.
    """

    def decode(item: tuple[int, ImageSource]) -> Decoded:
        index, source = item
        with profile.phase("decode"):
            try:
                return source_name(source, index), decode_image(source, spec, several=several)
            except ImageError as error:
                return source_name(source, index), error

    return _batches(images, batch_size, decode)


def decode_photos(
    images: Iterable[ImageSource], spec: Preprocess, batch_size: int, *, several: bool = False
) -> Iterator[list[tuple[str, Floats | ImageError, bytes]]]:
    """Yield batches like ``decode_batches``, with the digest of each image's pixels (see ``decode_photo``)."""

    def decode(item: tuple[int, ImageSource]) -> tuple[str, Floats | ImageError, bytes]:
        name = source_name(item[1], item[0])
        try:
            return name, *decode_photo(item[1], spec, several=several)
        except ImageError as error:
            return name, error, b""

    return _batches(images, batch_size, decode)


def decode_photo(
    source: ImageSource,
    spec: Preprocess,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    *,
    several: bool = False,
) -> tuple[Floats, bytes]:
    """Return the encoder's input for one image, as ``decode_image`` does, and the SHA-256 of its upright RGB pixels.

    The digest does not depend on the file's format or metadata: another file of the same pixels has the same digest.

    Raises:
        ImageError: The image cannot be read.
    """
    image = load_rgb(source, spec.fill, formats, max_pixels)
    inputs = crops_to_input(image, spec) if several else scaled(fit(image, spec), spec)
    return inputs, pixel_digest(image)


def _batches(
    images: Iterable[ImageSource], batch_size: int, decode: Callable[[tuple[int, ImageSource]], Item]
) -> Iterator[list[Item]]:
    """Yield what ``decode`` makes of each numbered image, in batches; the next batch is decoded meanwhile."""
    numbered = enumerate(images)
    lasting = isinstance(images, Sequence)

    with ThreadPoolExecutor(min(_MOST_THREADS, batch_size, os.cpu_count() or 1)) as pool:

        def start(item: tuple[int, ImageSource]) -> Future[Item]:
            future = pool.submit(decode, item)
            if not lasting and isinstance(item[1], ImageFile.ImageFile):
                wait([future])
            return future

        ahead = [start(item) for item in islice(numbered, batch_size)]
        while ahead:
            current, ahead = ahead, [start(item) for item in islice(numbered, batch_size)]
            yield [future.result() for future in current]


def readable(batch: Sequence[Decoded]) -> list[Floats]:
    """Return the pixels of the images in a batch that could be read."""
    return [item for _, item in batch if isinstance(item, np.ndarray)]
