from __future__ import annotations

import pytest
from PIL import Image

from sar_infer.images.formats import FORMATS, SUFFIXES, UNREAD, has_image_suffix


def test_suffixes_belong_to_formats_that_can_be_read() -> None:
    registered = {suffix: "JPEG" if form == "MPO" else form for suffix, form in Image.registered_extensions().items()}
    assert {registered[suffix] for suffix in SUFFIXES} == set(FORMATS)
    assert not SUFFIXES & UNREAD


@pytest.mark.parametrize("path", ["a.JPG", "deep/b.webp", "c.d.tiff", "e.jfif"])
def test_image_suffixes(path: str) -> None:
    assert has_image_suffix(path)


@pytest.mark.parametrize("path", ["jpg", "a.jpg.txt", "a.jpg/b", ".jpg", "a.svg", ""])
def test_other_suffixes(path: str) -> None:
    assert not has_image_suffix(path)
