from __future__ import annotations

from PIL import Image

from sar_infer.images.formats import FORMATS, SUFFIXES, UNREAD


def test_suffixes_belong_to_formats_that_can_be_read() -> None:
    registered = {suffix: "JPEG" if form == "MPO" else form for suffix, form in Image.registered_extensions().items()}
    assert {registered[suffix] for suffix in SUFFIXES} == set(FORMATS)
    assert not SUFFIXES & UNREAD
