from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.bundles import PREPROCESS
from support.examples import examples
from support.transform import open_clip_transform
from transformers import CLIPImageProcessorPil

from sar_infer.images import preprocess
from sar_infer.images.preprocess import normalise, to_input

RNG = np.random.default_rng(0)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=examples(150))
@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    size=st.integers(8, 70),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill=st.sampled_from([0, 128]),
)
def test_equals_open_clip_on_any_size(width, height, size, mode, interpolation, fill) -> None:
    if mode == "longest" and max(width, height) / min(width, height) > size:
        return  # open_clip fails where a side is rounded to nothing
    spec = dataclasses.replace(PREPROCESS, size=size, resize_mode=mode, interpolation=interpolation, fill=fill)
    image = picture(width, height)
    np.testing.assert_array_equal(to_input(image, spec), open_clip_transform(spec)(image).numpy())


@settings(max_examples=examples(60))
@given(width=st.integers(8, 150), height=st.integers(8, 150), size=st.integers(8, 70))
def test_floor_crops_as_transformers_does(width, height, size) -> None:
    """CLIP's own processor on Pillow is the reference."""
    spec = dataclasses.replace(PREPROCESS, size=size, resize_mode="shortest", interpolation="bicubic", crop="floor")
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=spec.mean,
        image_std=spec.std,
    )
    image = picture(width, height)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(to_input(image, spec), expected, rtol=0, atol=1e-6)


def test_longest_never_rounds_a_side_to_nothing() -> None:
    spec = dataclasses.replace(PREPROCESS, resize_mode="longest")
    assert to_input(picture(6400, 64), spec).shape == (3, 32, 32)
    assert to_input(picture(64, 6400), spec).shape == (3, 32, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    """The picture is stored turned as the tag says; Pillow's own transposition is the reference."""
    from PIL import ImageOps

    image = picture(6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = io.BytesIO()
    image.save(stored, "PNG", exif=exif)
    with Image.open(stored) as turned:
        np.testing.assert_array_equal(np.asarray(normalise(turned)), np.asarray(ImageOps.exif_transpose(turned)))
        assert normalise(turned).size == ((6, 4) if orientation < 5 else (4, 6))


def array(*rows: object) -> Image.Image:
    return Image.fromarray(np.array([rows], dtype=np.uint8))


def palette(**info: object) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.info |= info
    return image


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        (array([200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]), [[200, 100, 0], [9, 9, 9], [47, 27, 7]]),
        (array([200, 255], [200, 0]), [[200] * 3, [9] * 3]),
        (palette(), [[10, 20, 30], [200, 100, 50]]),
        (palette(transparency=1), [[10, 20, 30], [9, 9, 9]]),
        (palette(transparency=b"\xff\x00"), [[10, 20, 30], [9, 9, 9]]),
        (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), [[0, 255, 255]]),
        (Image.fromarray(np.array([[False, True]])), [[0] * 3, [255] * 3]),
    ],
    ids=["alpha", "grey and alpha", "palette", "a transparent colour", "palette and alpha", "CMYK", "one bit"],
)
def test_every_kind_becomes_rgb_on_the_fill_colour(image: Image.Image, pixels: list[list[int]]) -> None:
    np.testing.assert_allclose(np.asarray(normalise(image, 9))[0], pixels, atol=1)


@pytest.mark.parametrize(
    ("kind", "values", "grey"),
    [
        (np.uint16, [257, 64000, 65535], [1, 249, 255]),
        (">u2", [257, 64000, 65535], [1, 249, 255]),
        (np.int32, [-5, 25700, 1 << 20], [0, 100, 255]),
        (np.float32, [0.0, 0.2, 1.0], [0, 51, 255]),
        (np.float32, [-3.0, 51.0, 300.0], [0, 51, 255]),
        (np.float32, [np.nan, 0.2, 1.0], [0, 51, 255]),
    ],
)
def test_deep_grey_is_scaled_to_bytes(kind, values, grey) -> None:
    image = Image.fromarray(np.array([values], dtype=kind))
    assert image.mode[0] in "IF"
    assert np.asarray(normalise(image))[0].tolist() == [[value] * 3 for value in grey]


def test_a_level_of_deep_grey_that_is_transparent() -> None:
    stored = io.BytesIO()
    Image.fromarray(np.array([[1000, 1001, 25700]], np.uint16)).save(stored, "PNG", transparency=1000)
    with Image.open(stored) as image:
        image.load()
        assert np.asarray(normalise(image, 99))[0, :, 0].tolist() == [99, 4, 100]


def in_mode(mode: str) -> Image.Image:
    """Noise of 37 x 23 pixels."""
    if mode in ("I", "I;16", "F"):
        kind = {"I": np.int32, "I;16": np.uint16, "F": np.float32}[mode]
        return Image.fromarray(RNG.integers(0, 65536, (23, 37)).astype(kind))
    image = picture(37, 23)
    if mode == "P and alpha":
        image = image.quantize(200)
        image.info["transparency"] = bytes(range(200))
        return image
    if mode == "RGB and alpha":
        image.info["transparency"] = image.getpixel((3, 3))
        return image
    if mode in ("LA", "RGBA"):
        image.putalpha(picture(37, 23).convert("L"))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P and alpha", "RGB and alpha", "I", "I;16", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_bands_of_rows_change_no_pixel(mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = in_mode(mode)
    image.getexif()[0x0112] = orientation
    whole = np.asarray(normalise(image, 99))
    assert whole.shape == ((23, 37, 3) if orientation == 1 else (37, 23, 3))
    for pixels in (1, 100, 37 * 22):
        monkeypatch.setattr(preprocess, "_BAND_PIXELS", pixels)
        np.testing.assert_array_equal(np.asarray(normalise(image, 99)), whole)


def test_exif_data_of_megabytes_is_not_read() -> None:
    """A single tag of it may become 30 times its size in memory."""
    image = picture(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes() + bytes(2**19)
    assert normalise(image).size == (4, 6)
    image = picture(6, 4)
    image.info["exif"] = exif.tobytes() + bytes(2**21)
    assert normalise(image).size == (6, 4)
    for zeros, size in ((2**16, (4, 6)), (2**21, (6, 4))):
        image = picture(6, 4)
        image.info["Raw profile type exif"] = f"\nexif\n{zeros:8}\n{(exif.tobytes() + bytes(zeros)).hex()}"
        assert normalise(image).size == size
