from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from support.pictures import encoded

from sar_infer.images.thumbnail import picture_of


def picture(uri: str) -> Image.Image:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content, validate=True)))


def test_a_thumbnail_is_the_photo_made_small() -> None:
    halves = Image.new("RGB", (400, 200), "red")
    halves.paste("blue", (200, 0, 400, 200))
    small = picture(picture_of(encoded(halves, "PNG"), 100))
    assert small.size == (100, 50)
    left, right = np.asarray(small)[:, 10].mean(axis=0), np.asarray(small)[:, 90].mean(axis=0)
    assert np.abs(left - (255, 0, 0)).max() < 8
    assert np.abs(right - (0, 0, 255)).max() < 8


def test_nothing_of_the_file_but_its_pixels_comes_along() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera that nobody may know"
    exif[0x0112] = 6  # turned
    secret = {"exif": exif, "comment": b"a comment that nobody may know", "icc_profile": b"a profile nobody may know"}
    data = encoded(Image.new("RGB", (400, 200), "green"), "JPEG", **secret)
    assert data.count(b"may know") == 3
    small = picture_of(data, 100)
    assert b"may know" not in base64.b64decode(small.partition(",")[2])
    assert picture(small).size == (50, 100)  # upright without being told
    assert not picture(small).getexif()


def test_a_photo_that_cannot_be_read_has_no_picture() -> None:
    assert picture_of(b"<svg onload='alert(1)'/>") is None
