"""Decoding images to the encoder's input, one at a time or in batches that threads decode ahead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from PIL import Image, ImageFile

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import Preprocess
from sar_infer.errors import ImageError
from sar_infer.images.formats import FORMATS
from sar_infer.images.load import MAX_PIXELS, ImageSource, load_rgb, source_name
from sar_infer.images.preprocess import crops_to_input, pixel_digest, to_input

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
    return _inputs(load_rgb(source, spec.fill, formats, max_pixels), spec, several)


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
    return _inputs(image, spec, several), pixel_digest(image)


def _inputs(image: Image.Image, spec: Preprocess, several: bool) -> Floats:
    return crops_to_input(image, spec) if several else to_input(image, spec)


def decode_batches(
    images: Iterable[ImageSource], decode: Callable[[ImageSource], Item], batch_size: int
) -> Iterator[list[tuple[str, Item | ImageError]]]:
    """Yield batches of at most ``batch_size`` decoded images, in order; the next batch is decoded meanwhile.

    At most two batches are held. An open PIL file is read before the next image is requested, unless the images are a
    sequence: a generator may close the file or move it to the next frame, since the frames of a film are one object.

    Args:
        images: The images.
        decode: Decodes one, such as ``decode_image``; called in threads.
        batch_size: Images of a batch.

    Yields:
        The name of each image, with what ``decode`` has returned or the error that it gave.
    """
    numbered = enumerate(images)
    lasting = isinstance(images, Sequence)

    def named(index: int, source: ImageSource) -> tuple[str, Item | ImageError]:
        try:
            return source_name(source, index), decode(source)
        except ImageError as error:
            return source_name(source, index), error

    with ThreadPoolExecutor(min(_MOST_THREADS, batch_size, os.cpu_count() or 1)) as pool:

        def start(index: int, source: ImageSource) -> Future[tuple[str, Item | ImageError]]:
            future = pool.submit(named, index, source)
            if not lasting and isinstance(source, ImageFile.ImageFile):
                wait([future])
            return future

        ahead = [start(*item) for item in islice(numbered, batch_size)]
        while ahead:
            current, ahead = ahead, [start(*item) for item in islice(numbered, batch_size)]
            yield [future.result() for future in current]


def readable(batch: Iterable[tuple[str, Item | ImageError]]) -> list[Item]:
    """Return what was decoded of the images in a batch that could be read."""
    return [item for _, item in batch if not isinstance(item, ImageError)]
