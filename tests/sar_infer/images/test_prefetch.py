from __future__ import annotations

import functools
import io
import threading

import numpy as np
import pytest
from PIL import Image, ImageSequence
from support.bundles import PREPROCESS
from support.pictures import encoded

from sar_infer.errors import ImageError
from sar_infer.images.prefetch import decode_batches, decode_image, decode_photo

decode = functools.partial(decode_image, spec=PREPROCESS)


def picture(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_order_batches_and_errors() -> None:
    sources, threads = [picture(0), b"bad", picture(255), picture(0), b""], threading.active_count()
    batches = list(decode_batches(sources, decode, 2))
    assert list(decode_batches([], decode, 4)) == []
    assert threading.active_count() == threads
    assert [len(batch) for batch in batches] == [2, 2, 1]
    names, items = zip(*[item for batch in batches for item in batch], strict=True)
    assert names == tuple(f"image[{i}]" for i in range(5))
    assert [isinstance(item, ImageError) for item in items] == [False, True, False, False, True]
    assert items[0].max() < items[2].min()


def test_no_more_than_two_batches_are_held() -> None:
    requested = 0

    def endless():
        nonlocal requested
        while True:
            requested += 1
            yield picture(1)

    batches = decode_batches(endless(), decode, 3)
    next(batches)
    assert requested == 6
    next(batches)
    assert requested == 9
    batches.close()


@pytest.mark.parametrize("form", ["GIF", "TIFF"])
def test_the_frames_of_a_film_are_pictures_of_their_own(form: str) -> None:
    frames = [Image.new("RGB", (64, 48), (shade, 255 - shade, 0)) for shade in range(0, 250, 50)]
    stream = io.BytesIO()
    frames[0].save(stream, form, save_all=True, append_images=frames[1:])
    with Image.open(stream) as film:
        ((*decoded,),) = decode_batches(ImageSequence.Iterator(film), decode, 16)
    with Image.open(stream) as film:
        expected = [decode_image(frame.copy(), PREPROCESS) for frame in ImageSequence.Iterator(film)]
    np.testing.assert_array_equal([pixels for _, pixels in decoded], expected)


# -------------------------------------------------------------------------------------------------------------- digests
def test_the_digest_is_that_of_the_pixels_whatever_the_file() -> None:
    spec = PREPROCESS
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    jpeg = encoded(image, "JPEG", quality=90)
    pixels = Image.open(io.BytesIO(jpeg)).convert("RGB")
    same = [jpeg, encoded(pixels, "PNG"), encoded(pixels, "TIFF"), encoded(pixels, "WEBP", lossless=True), pixels]
    assert len({decode_photo(source, spec)[1] for source in same}) == 1
    turned = pixels.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned to the right
    assert decode_photo(encoded(turned, "PNG", exif=exif), spec)[1] == decode_photo(jpeg, spec)[1]
    for source in same[:2]:
        np.testing.assert_array_equal(decode_photo(source, spec)[0], decode_image(source, spec))
    for other in (turned, pixels.resize((200, 150)), encoded(pixels, "JPEG", quality=50)):
        assert decode_photo(other, spec)[1] != decode_photo(jpeg, spec)[1]
