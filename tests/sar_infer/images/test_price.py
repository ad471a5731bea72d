"""Size and cost by an image's header, and decoding within them."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.examples import examples
from support.giants import GIANTS
from support.hostile import corpus, mutated, of_size, png, segments, sound, webp
from support.pictures import chunk, encoded, jpeg

from sar_infer.errors import ImageError
from sar_infer.images.formats import FORMATS
from sar_infer.images.load import MAX_PIXELS, load_rgb
from sar_infer.images.price import price, read_header

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
_MEASURE = """
import json, os
from sar_infer.images.price import price
from sar_infer.images.formats import FORMATS
from sar_infer.images.load import load_rgb
from support.giants import GIANTS

def status(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

size, peaks = (1600, 1500), {}
load_rgb(GIANTS["PNG RGBA, turned"]((8, 8)))
for name, make in GIANTS.items():
    image, (reader, writer) = make(size), os.pipe()
    if not os.fork():
        before = status("VmRSS")
        load_rgb(image)
        os.write(writer, str(status("VmHWM") - before).encode())
        os._exit(0)
    os.wait()
    peaks[name] = int(os.read(reader, 20)), price(image, FORMATS, size[0] * size[1])[1]
print(json.dumps(peaks))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_no_giant_takes_more_than_its_price() -> None:
    """In forks of a small process, so that each starts from the same memory."""
    settings = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576", "PYTHONPATH": os.pathsep.join(sys.path)}
    made = subprocess.run(
        [sys.executable, "-c", _MEASURE], stdout=subprocess.PIPE, check=True, env={**os.environ, **settings}
    )
    peaks = json.loads(made.stdout)
    assert set(peaks) == set(GIANTS)
    assert {name: (peak, most) for name, (peak, most) in peaks.items() if peak > most} == {}


@pytest.mark.parametrize("name", [name for name in GIANTS if not name.startswith("TIFF")])
def test_the_header_tells_the_size(name: str) -> None:
    header = read_header(GIANTS[name]((90, 70)), FORMATS)
    assert header is not None
    assert header.size == (90, 70)


@pytest.mark.parametrize(
    ("name", "per_pixel"),
    [
        ("JPEG baseline", 8),
        ("JPEG progressive grey", 8),
        ("JPEG progressive", 10),
        ("JPEG progressive CMYK, turned", 12),
        ("PNG 16 bit RGBA", 8),
        ("WebP lossy", 16),
        ("WebP lossless", 16),
        ("GIF", 9),
    ],
)
def test_bytes_a_pixel_by_format(name: str, per_pixel: int) -> None:
    data = GIANTS[name]((320, 320))
    least, most = price(data, FORMATS, MAX_PIXELS)
    assert least == 320 * 320 * per_pixel
    assert most - least < 2**25


def test_a_baseline_jpeg_of_several_scans_is_priced_as_a_progressive_one() -> None:
    data = jpeg((64, 64))
    at = data.index(b"\xff\xda")
    one_part = data[: at + 2] + struct.pack(">HB", 8, 1) + data[at + 5 : at + 7] + b"\0\x3f\0" + data[at + 14 :]
    assert price(data, FORMATS, MAX_PIXELS)[0] == 64 * 64 * 8
    assert price(one_part, FORMATS, MAX_PIXELS)[0] == 64 * 64 * 10


def test_a_header_too_long_to_read_costs_as_much_as_the_largest_image() -> None:
    photo = jpeg()
    most = price(encoded(Image.new("RGB", (9, 9)), "TIFF"), FORMATS, 10**7)[1]
    long = photo[:2] + b"\xff\xfe\0\2" * 5000 + photo[2:]
    assert read_header(long, FORMATS) is None
    assert price(long, FORMATS, 10**7)[1] >= most > 16 * 10**7
    assert read_header(png(before=chunk(b"juNk", b"") * 50_000), FORMATS) is None
    gif = bytearray(encoded(Image.new("P", (9, 9)), "GIF"))
    at = gif.index(b",", 13)
    assert read_header(bytes(gif[:at] + b"!\xfe" + b"\1a" * 5000 + b"\0" + gif[at:]), FORMATS) is None


def test_images_that_will_be_refused_cost_little() -> None:
    for data in (
        webp(16_384, 16_384),
        of_size(jpeg(), 60_000, 60_000),
        b"neither",
        encoded(Image.new("L", (9, 9)), "GIF"),
    ):
        assert price(data, ("JPEG", "PNG", "WEBP"), MAX_PIXELS)[1] < 2**24


def test_a_webp_too_large_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    for data in (webp(16_384, 16_384), encoded(Image.new("RGB", (99, 99)), "WEBP"), GIANTS["WebP lossless"]((99, 99))):
        with pytest.raises(ImageError, match="too large"):
            load_rgb(data, max_pixels=99 * 99 - 1)


def test_a_second_header_that_says_more_is_refused_or_priced_as_the_largest() -> None:
    later = png(40, 40)
    twice = png(8, 8, before=later[8:33])
    assert read_header(twice, FORMATS) is None
    photo = jpeg((80, 60))
    frame = photo[photo.index(b"\xff\xc0") :][:19]
    small = of_size(photo, 8, 8)
    both = small[:-2].replace(b"\xff\xda", frame + b"\xff\xda", 1)
    header = read_header(both, FORMATS)
    assert header is None or header.size == (80, 60)
    metadata = segments(photo, b"\xe1" + frame)
    assert read_header(metadata, FORMATS) == read_header(photo, FORMATS)


@settings(max_examples=examples(800), database=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, len(sound()) - 1))
def test_whatever_decodes_is_no_larger_than_its_header_said(seed: int, which: int) -> None:
    data = mutated(sound()[which], random.Random(seed))
    header = read_header(data, FORMATS)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = image.size
    except Exception:  # Pillow raises almost anything
        return
    assert header is None or size == header.size


@pytest.mark.parametrize("name", list(corpus()))
def test_any_header_is_read_without_an_exception(name: str) -> None:
    data = corpus()[name][0]
    for length in (len(data), len(data) // 2, 40, 30, 24, 12, 3, 0):
        least, most = price(data[:length], FORMATS, MAX_PIXELS)
        assert 0 <= least <= most


def test_a_tiff_of_huge_tiles_is_refused() -> None:
    data = bytearray(encoded(Image.new("L", (16, 16)), "TIFF", tiffinfo={270: "width", 305: "height"}))
    load_rgb(bytes(data))
    for placeholder, tag in ((270, 322), (305, 323)):
        struct.pack_into("<HHII", data, data.index(struct.pack("<HH", placeholder, 2)), tag, 4, 1, 8000)
    with pytest.raises(ImageError, match="tiles"):
        load_rgb(bytes(data))
