from __future__ import annotations

import io
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from support.hostile_jpegs import EOI, SOI, SOS, hidden_scans, mutated, segment, traced_scans
from support.pictures import encoded

from sar_infer.errors import ImageError
from sar_infer.images.jpeg import MAX_SCANS, MAX_STEPS, check_scans, count_scans
from sar_infer.images.load import load_rgb

NOISE = Image.effect_noise((120, 80), 60).convert("RGB")
BASELINE, PROGRESSIVE = encoded(NOISE, "JPEG"), encoded(NOISE, "JPEG", progressive=True)
FRAME = segment(0xC0, b"\x08\0\x08\0\x08\x01\x01\x11\0")
SCAN = segment(0xDA, b"\x01\x01\0\0\x3f\0")
needs_djpeg = pytest.mark.skipif(not shutil.which("djpeg"), reason="needs djpeg (Debian: libjpeg-turbo-progs)")


@needs_djpeg
@pytest.mark.parametrize("seed", range(2))
def test_no_scan_that_libjpeg_starts_is_missed(seed: int) -> None:
    several = refused = 0
    for number in range(100):
        data = mutated(random.Random(f"{seed} {number}"))
        traced = traced_scans(data)
        several += traced > 1
        try:
            assert count_scans(data) >= traced, f"{seed} {number}"
        except ImageError:
            refused += 1
    assert several > 30
    assert refused < 10


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a pixel is decoded."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(("side", "scans"), [(7070, 500), (7000, 6000)])
def test_scans_behind_invalid_markers_are_counted(tmp_path: Path, side: int, scans: int) -> None:
    data = hidden_scans(side, scans)
    (tmp_path / "a.jpg").write_bytes(data)
    with Image.open(io.BytesIO(data)) as opened:
        for source in (data, tmp_path / "a.jpg", opened):
            with pytest.raises(ImageError, match=f"too many scans: .* {side} x {side}"):
                load_rgb(source)


@needs_djpeg
def test_libjpeg_decodes_the_scans_behind_invalid_markers() -> None:
    data = hidden_scans(100, 500)
    assert count_scans(data) == traced_scans(data) > 500


@pytest.mark.parametrize(
    ("between", "scans"),
    [
        (b"\xff\x02\0\x0c" + SCAN, 3),
        (b"\xff\x01\0\x0c" + SCAN, 3),
        (b"\xff\xd3\0\x0c" + SCAN, 3),
        (b"\xff\0\0\x0c" + SCAN, 3),
        (b"\xff\xff\xff" + SCAN, 3),
        (b"\xff\xfe\0\0" + SCAN, 3),
        (b"\xff\xfe\0\1" + SCAN, 3),
        (segment(0xFE, EOI) + SCAN, 3),
        (segment(0xFE, SCAN), 2),
        (segment(0xE0, SCAN, 2), 3),
        (SOI + b"\0\x0c" + SCAN, 3),
        (EOI + SCAN * 9, 1),
    ],
)
def test_bytes_between_two_scans(between: bytes, scans: int) -> None:
    assert count_scans(SOI + FRAME + SCAN + between + SCAN + EOI) == scans


def test_an_end_of_tables_is_not_the_end() -> None:
    assert count_scans(SOI + segment(0xDB, bytes(65)) + EOI + SOI + FRAME + SCAN * 5 + EOI) == 5


@pytest.mark.parametrize(
    ("mode", "settings", "scans"),
    [
        ("L", {"progressive": True}, 6),
        ("RGB", {"progressive": True}, 10),
        ("RGB", {"progressive": True, "keep_rgb": True}, 14),
        ("CMYK", {"progressive": True}, 18),
        ("RGB", {"restart_marker_blocks": 1}, 1),
    ],
)
def test_progressive_jpegs_pass_at_any_size(mode: str, settings: dict[str, Any], scans: int) -> None:
    data = encoded(NOISE.convert(mode), "JPEG", **settings)
    assert count_scans(data) == scans
    check_scans(data, 10_000, 5_000)


def test_scans_are_limited_by_pixels_and_by_number() -> None:
    data = SOI + FRAME + SCAN * 40 + EOI
    check_scans(data, 5_000, 5_000)
    with pytest.raises(ImageError, match="5000 x 5001 .* 39"):
        check_scans(data, 5_000, 5_001)
    with pytest.raises(ImageError, match=f"{MAX_SCANS + 1} .* {MAX_SCANS} "):
        check_scans(SOI + FRAME + SCAN * (MAX_SCANS + 1) + EOI, 1, 1)


def ordinary() -> dict[str, bytes]:
    """Return JPEGs as phones, cameras and programs write them, with many bytes that look like a scan's."""
    chance = random.Random(0)
    film = b"\0\0\0\x18ftypmp42" + chance.randbytes(4_000_000) + SOS * 1000
    thumbnail = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encoded(NOISE.resize((60, 40)), "JPEG", progressive=True) * 9
    first = PROGRESSIVE.index(b"\xff\xc2")
    return {
        "progressive": PROGRESSIVE,
        "EXIF thumbnails": encoded(NOISE, "JPEG", exif=thumbnail),
        "ICC profile": encoded(NOISE, "JPEG", icc_profile=chance.randbytes(200_000) + SOS * 1000),
        "comment": encoded(NOISE, "JPEG", progressive=True, comment=EOI + SOS * 1000),
        "motion photo": BASELINE + film,
        "progressive motion photo": PROGRESSIVE + film,
        "MPO": encoded(NOISE, "MPO", save_all=True, append_images=[NOISE] * 80),
        "restarts": encoded(NOISE, "JPEG", restart_marker_blocks=1),
        "fill bytes": PROGRESSIVE[:first] + b"\xff" * 5000 + PROGRESSIVE[first:-2] + b"\xff" * 5000 + EOI,
        "many notes": SOI + segment(0xE1, SOS * 30_000) * 500 + PROGRESSIVE[2:],
    }


@pytest.mark.parametrize("kind", list(ordinary()))
def test_ordinary_jpegs_are_decoded(tmp_path: Path, kind: str) -> None:
    data = ordinary()[kind]
    (tmp_path / "a.jpg").write_bytes(data)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened)
    with Image.open(io.BytesIO(data)) as opened:
        for source in (data, tmp_path / "a.jpg", opened):
            np.testing.assert_array_equal(np.asarray(load_rgb(source)), expected)


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(
    "data",
    [
        SOI + b"\xff\xfe\0\2" * (MAX_STEPS + 1) + BASELINE[2:],
        SOI + b"\xff" * (MAX_STEPS + 1) + BASELINE[2:],
        SOI + b"\xff\xd0" * MAX_STEPS,
        PROGRESSIVE[:-2] + b"\xff\xfe\0\2" * MAX_STEPS + EOI,
        PROGRESSIVE[:-2] + b"\xff" * 40_000 + EOI,
    ],
)
def test_segments_and_stray_bytes_without_end(data: bytes) -> None:
    with pytest.raises(ImageError, match=f"{MAX_STEPS:,}"):
        load_rgb(data)


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize("code", [0xC5, 0xC9, 0xCA, 0xCB, 0xCF, 0xDE, 0xF0])
def test_kinds_that_are_not_supported(code: int) -> None:
    with pytest.raises(ImageError, match=f"FF {code:02X}"):
        load_rgb(BASELINE.replace(b"\xff\xc0", bytes([0xFF, code])))


def test_arithmetic_coding_in_a_tiff(tmp_path: Path) -> None:
    data = encoded(NOISE, "TIFF", compression="jpeg")
    assert load_rgb(data).size == NOISE.size
    (tmp_path / "a.tiff").write_bytes(data.replace(b"\xff\xc0\0", b"\xff\xc9\0"))
    with pytest.raises(ImageError, match="arithmetic"):
        load_rgb(tmp_path / "a.tiff")
