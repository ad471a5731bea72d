from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.giants import GIANTS
from support.hostile import BROKEN, OK, OTHER_FORMAT, TOO_LARGE, corpus, webp
from support.pictures import encoded, huge_png

from sar_infer import Classifier
from sar_infer.errors import ImageError
from sar_infer.images.formats import FORMATS
from sar_infer.images.load import load_rgb, read_heif
from sar_infer.server.settings import SAFE_FORMATS

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
SHIRT = Path(__file__).parents[3] / "examples" / "clothes" / "test" / "shirt" / "03.jpg"


@pytest.fixture
def modern() -> None:
    """Formats of phones can be written too."""
    pytest.importorskip("pillow_heif", reason="needs the extra heif")
    read_heif()


@pytest.mark.parametrize("form", FORMATS)
def test_every_allowed_format_opens_by_content(tmp_path: Path, form: str, modern: None) -> None:
    path = tmp_path / "misnamed.txt"
    path.write_bytes(encoded(PICTURE, form))
    assert load_rgb(path).size == (30, 20)
    assert load_rgb(path).mode == "RGB"


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", list(corpus()))
def test_every_hostile_image_is_an_image_or_one_line_that_says_why_not(name: str) -> None:
    data, status = corpus()[name]
    try:
        assert load_rgb(data, formats=SAFE_FORMATS).mode == "RGB"
        outcome = OK
    except ImageError as error:
        assert "\n" not in str(error)
        outcome = {"size": TOO_LARGE, "format": OTHER_FORMAT, "unreadable": BROKEN}[error.kind]
    assert outcome == status


@pytest.mark.parametrize("form", FORMATS)
def test_truncated(form: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, form)
    for share in (0.02, 0.5, 0.9):
        for least in (None, 8):
            with pytest.raises(ImageError):
                load_rgb(data[: int(len(data) * share)], least=least)


def test_every_form_of_input_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    PICTURE.save(path)
    with Image.open(path) as lazily_opened:
        for source in (path, str(path), path.read_bytes(), PICTURE, lazily_opened, PIXELS):
            np.testing.assert_array_equal(np.asarray(load_rgb(source)), PIXELS)
        assert lazily_opened.getpixel((0, 0)) == tuple(PIXELS[0, 0])


def test_an_image_that_memory_does_not_suffice_for_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(ImageError, match="needs more memory") as caught:
        load_rgb(encoded(PICTURE, "PNG"))
    assert caught.value.kind == "size"


def test_many_threads_read_one_open_file() -> None:
    data = encoded(PICTURE.resize((1200, 800)), "JPEG")
    expected = np.asarray(load_rgb(data))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            with Image.open(io.BytesIO(data)) as lazily_opened:
                for caught in pool.map(load_rgb, [lazily_opened] * 8):
                    np.testing.assert_array_equal(np.asarray(caught), expected)


def test_arrays_of_other_shapes() -> None:
    assert load_rgb(PIXELS[:, :, 0]).getpixel((3, 4)) == (PIXELS[4, 3, 0],) * 3
    assert load_rgb(PIXELS[:, :, :1]).getpixel((3, 4)) == (PIXELS[4, 3, 0],) * 3
    assert load_rgb(np.dstack([PIXELS, np.zeros((20, 30), np.uint8)]), fill=7).getpixel((3, 4)) == (7, 7, 7)


@pytest.mark.parametrize(
    "wrong",
    [PIXELS.astype(np.float32), PIXELS[None], PIXELS[:, :, :2], np.zeros(5, np.uint8), 5, None, ["a"]],
)
def test_other_objects_are_refused(wrong) -> None:
    with pytest.raises(ImageError, match=r"\(H, W, 3\)"):
        load_rgb(wrong)


def test_the_first_frame_counts(tmp_path: Path) -> None:
    path = tmp_path / "p.gif"
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.save(path, save_all=True, append_images=[blue])
    assert load_rgb(path).getpixel((0, 0)) == (255, 0, 0)
    with Image.open(path) as mine:
        load_rgb(mine)
        mine.seek(1)  # an image that the caller opened stays open, and its frame is the caller's choice
        assert load_rgb(mine).getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once_whatever_the_format(form: str) -> None:
    image = Image.new("RGB", (32, 16), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image.rotate(90, expand=True), form, exif=exif)
    with Image.open(io.BytesIO(data)) as lazily_opened:
        for source in (data, lazily_opened):
            upright = load_rgb(source)
            assert upright.size == (32, 16)
            assert upright.getpixel((4, 8))[2] > 240
            assert upright.getpixel((28, 8))[0] > 240


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_photos_of_phones_equal_their_png(
    form: str, orientation: int, tmp_path: Path, classifier: Classifier, modern: None
) -> None:
    """Orientation and colours are those of the same photo as PNG, from bytes and from a file."""
    photo, exif = Image.open(SHIRT).resize((96, 64)), Image.Exif()
    exif[0x0112] = orientation
    turned = exif.tobytes()  # encoders change the object
    data = encoded(photo, form, exif=turned, quality=95)
    path = tmp_path / "photo.jpg"  # a format is recognised by content
    path.write_bytes(data)
    expected = load_rgb(encoded(photo, "PNG", exif=turned))
    assert expected.size == ((96, 64) if orientation < 5 else (64, 96))
    for source in (data, path):
        image = load_rgb(source)
        assert image.size == expected.size
        assert np.abs(np.asarray(image, float) - np.asarray(expected, float)).mean() < 6
    rows = classifier.embed_images([expected, data])
    assert rows[0] @ rows[1] > 0.999


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_wide_colours_and_transparency_of_phones(form: str, modern: None) -> None:
    image = Image.new("RGBA", (32, 32), (200, 30, 30, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 16))
    result = load_rgb(encoded(image, form, quality=95), fill=128)
    assert np.abs(np.asarray(result, float)[[2, 29], 16] - [[128] * 3, [200, 30, 30]]).max() < 12


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_sizes_of_phone_formats_are_refused_by_the_header(form: str, modern: None) -> None:
    data = encoded(Image.new("RGB", (64, 64)), form)
    at = data.index(b"ispe") + 8
    for width, height, message in ((10_000, 6000, "too large: 10000 x 6000"), (9000, 64, "too thin")):
        bomb = data[:at] + struct.pack(">II", width, height) + data[at + 8 :]
        tracemalloc.start()
        with pytest.raises(ImageError, match=message):
            load_rgb(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


def test_a_heic_that_hides_its_size_takes_no_memory(modern: None) -> None:
    data = encoded(Image.new("RGB", (4000, 4000), (200, 30, 30)), "HEIF", quality=10)
    lie = data.replace(struct.pack(">II", 4000, 4000), struct.pack(">II", 100, 100))
    assert lie != data
    with pytest.raises(ImageError, match="cannot be read: .*Security limit exceeded"):
        load_rgb(lie)


def test_without_the_extra_the_refusal_names_it(monkeypatch: pytest.MonkeyPatch, modern: None) -> None:
    data = encoded(PICTURE, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    read_heif.cache_clear()
    with pytest.raises(ImageError, match=r"^HEIC needs another package: pip install '.\[heif\]'"):
        load_rgb(data)
    read_heif.cache_clear()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jpg", b"", "empty file"),
        ("a.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIF is not read, only JPEG, PNG"),
        ("a.jpg", b"\0\0\0\x18ftypmif1\0\0\0\0mif1", "HEIF is not read"),
        ("a.jpg", b"\0\0\0\x18ftypavif\0\0\0\0mif1", "AVIF is not read"),
        ("a.jpg", encoded(PICTURE, "TIFF"), "TIFF is not read"),
        ("a.RAF", b"FUJIFILMCCD-RAW", "RAF is not read"),
        ("a.jpg", b"\x89PNG\r\n\x1a\n" + bytes(100), "not an image"),
    ],
)
def test_a_format_that_is_not_read_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    for source in (tmp_path / name, data)[: 1 if name == "a.RAF" else 2]:
        with pytest.raises(ImageError, match=f"^{message}"):
            load_rgb(source, formats=("JPEG", "PNG"))


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (10_000, 5_001, "too large: 10000 x 5001 pixels, at most 50 million and 16384 a side"),
        (16_385, 200, "too large: 16385 x 200"),
        (101, 1, "too thin: 101 x 1 pixels, at most 1:100"),
        (1, 101, "too thin"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_sizes_that_are_refused_by_the_header(width: int, height: int, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_rgb(huge_png(width, height))


@pytest.mark.parametrize("size", [(10_000, 5_000), (100, 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_largest_and_the_thinnest_image(size: tuple[int, int]) -> None:
    assert load_rgb(huge_png(*size)).size == size


def test_size_limits_hold_for_arrays() -> None:
    with pytest.raises(ImageError, match="too large"):
        load_rgb(np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (20_000, 300, 3)))
    with pytest.raises(ImageError, match="empty"):
        load_rgb(np.zeros((0, 5, 3), np.uint8))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such"):
        load_rgb(tmp_path / "x.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would never end
    for path in (tmp_path, tmp_path / "pipe.jpg"):
        with pytest.raises(ImageError, match="not a file"):
            load_rgb(path)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"],
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = load_rgb(Image.new(mode, (4, 3)))
    assert (image.mode, image.size) == ("RGB", (4, 3))


def test_a_mode_without_conversion_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="La"):
        load_rgb(Image.new("La", (4, 4)))


def jpeg(size: tuple[int, int], **settings) -> bytes:
    """A smooth picture, so that all scales of it look alike."""
    coarse = Image.fromarray(PIXELS[:6, :6]).resize(size, Image.Resampling.BICUBIC)
    return encoded(coarse.convert(settings.pop("mode", "RGB")), "JPEG", **settings)


@pytest.mark.parametrize(
    ("least", "size"),
    [(None, (800, 600)), (301, (800, 600)), (300, (400, 300)), (150, (200, 150)), (75, (100, 75)), (10, (100, 75))],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_allowed(least: int | None, size: tuple[int, int]) -> None:
    assert load_rgb(jpeg((800, 600)), least=least).size == size
    assert load_rgb(jpeg((600, 800)), least=least).size == size[::-1]


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"mode": "CMYK"}, {"mode": "L"}, {"subsampling": 0}])
def test_a_reduced_jpeg_looks_like_the_whole(settings: dict) -> None:
    data = jpeg((800, 600), quality=95, **settings)
    whole, small = load_rgb(data), load_rgb(data, least=150)
    assert small.size == (200, 150)
    assert small.mode == "RGB"
    reduced = np.asarray(whole.resize((200, 150), Image.Resampling.BOX), dtype=float)
    assert np.abs(np.asarray(small, dtype=float) - reduced).mean() < 2


def test_a_reduced_jpeg_is_still_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_rgb(jpeg((800, 600), exif=exif), least=300).size == (300, 400)


def test_of_several_frames_the_first_is_reduced() -> None:
    first, second = (Image.new("RGB", (800, 600), colour) for colour in ("red", "blue"))
    caught = load_rgb(encoded(first, "MPO", save_all=True, append_images=[second]), least=150)
    assert caught.size == (200, 150)
    assert caught.getpixel((9, 9))[0] > 200


def test_small_jpegs_other_formats_and_open_pictures_stay_as_they_are() -> None:
    whole = [encoded(PICTURE, form) for form in FORMATS if form != "JPEG"]
    for source, least in ((encoded(PICTURE, "JPEG"), 20), (PICTURE, 20), (PIXELS, 20), *((data, 1) for data in whole)):
        np.testing.assert_array_equal(np.asarray(load_rgb(source, least=least)), np.asarray(load_rgb(source)))


def test_a_webp_too_large_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    for data in (webp(16_384, 16_384), encoded(Image.new("RGB", (99, 99)), "WEBP"), GIANTS["WebP lossless"]((99, 99))):
        with pytest.raises(ImageError, match="too large"):
            load_rgb(data, max_pixels=99 * 99 - 1)


def test_a_tiff_of_huge_tiles_is_refused() -> None:
    data = bytearray(encoded(Image.new("L", (16, 16)), "TIFF", tiffinfo={270: "width", 305: "height"}))
    load_rgb(bytes(data))
    for placeholder, tag in ((270, 322), (305, 323)):
        struct.pack_into("<HHII", data, data.index(struct.pack("<HH", placeholder, 2)), tag, 4, 1, 8000)
    with pytest.raises(ImageError, match="tiles"):
        load_rgb(bytes(data))
