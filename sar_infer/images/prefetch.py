"""Reading pictures ahead: a pool of threads decodes the next batch while the current one is encoded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice

import numpy as np
from PIL import Image, ImageFile

from sar_infer._arrays import Floats
from sar_infer.artefact.manifest import Preprocess
from sar_infer.errors import ImageError
from sar_infer.images.formats import FORMATS
from sar_infer.images.load import MAX_PIXELS, ImageSource, load_rgb, source_name
from sar_infer.images.preprocess import least_side, to_input
from sar_infer.results import Profile

Decoded = tuple[str, Floats | ImageError]
"""An input's name, and its (3, H, W) pixels or why there are none."""
_MOST_THREADS = 8


def decode_image(
    source: ImageSource, spec: Preprocess, formats: tuple[str, ...] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Floats:
    """The encoder's input (3, size, size) for one picture, decoded as the bundle's policy for large JPEGs says.

    Args:
        source: The picture.
        spec: How to prepare it.
        formats: See ``images.load_rgb``.
        max_pixels: See ``images.load_rgb``.

    Raises:
        ImageError: it cannot be read.
    """
    return to_input(load_rgb(source, spec.fill, formats, max_pixels, least_side(spec)), spec)


def decode_batches(
    images: Iterable[ImageSource], spec: Preprocess, batch_size: int, profile: Profile
) -> Iterator[list[Decoded]]:
    """Batches of at most ``batch_size`` decoded pictures, in order; no more than two batches are held at a time.

    An open PIL file that comes from anything but a sequence is read before the next picture is asked for, which may
    close it or move it on: the frames of a film are one object.
    """
    numbered = enumerate(images)
    lasting = isinstance(images, Sequence)

    def decode(item: tuple[int, ImageSource]) -> Decoded:
        index, source = item
        with profile.phase("decode"):
            try:
                return source_name(source, index), decode_image(source, spec)
            except ImageError as error:
                return source_name(source, index), error

    with ThreadPoolExecutor(min(_MOST_THREADS, batch_size, os.cpu_count() or 1)) as pool:

        def start(item: tuple[int, ImageSource]) -> Future[Decoded]:
            future = pool.submit(decode, item)
            if not lasting and isinstance(item[1], ImageFile.ImageFile):
                wait([future])
            return future

        ahead = [start(item) for item in islice(numbered, batch_size)]
        while ahead:
            current, ahead = ahead, [start(item) for item in islice(numbered, batch_size)]
            yield [future.result() for future in current]


def several(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """Pictures, where a single one may stand for itself."""
    single = isinstance(images, str | os.PathLike | bytes | Image.Image | np.ndarray)
    return [images] if single else images  # type: ignore[list-item, return-value]


def readable(batch: Sequence[Decoded]) -> list[Floats]:
    """The pixels of those that could be read."""
    return [item for _, item in batch if isinstance(item, np.ndarray)]
