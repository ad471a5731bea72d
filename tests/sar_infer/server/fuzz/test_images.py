"""Hostile and damaged images."""

from __future__ import annotations

import random

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.examples import examples
from support.hostile import corpus, mutated, phone_photo, sound
from support.servers import Server

from sar_infer.errors import ImageError
from sar_infer.images import load
from sar_infer.images.formats import FORMATS
from sar_infer.images.load import load_rgb
from sar_infer.server.settings import SAFE_FORMATS

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


@pytest.mark.parametrize("start", range(0, len(corpus()), 25))
def test_hostile_images_among_sound_ones_fail_alone(either_server: Server, start: int) -> None:
    names = list(corpus())[start : start + 25]
    files = [("image", (name, corpus()[name][0], "image/png")) for name in names]
    answer = httpx2.post(f"{either_server.url}/v1/classify", files=files, timeout=60)
    assert answer.status_code == 200
    for name, result in zip(names, answer.json()["results"], strict=True):
        assert (result["error"] is None) == (corpus()[name][1] == 200), name


def loads(data: bytes, formats: tuple[str, ...] = SAFE_FORMATS) -> bool:
    """Tell whether it is an image; any exception but ``ImageError`` fails the test."""
    try:
        image = load_rgb(data, 0, formats)
    except ImageError as error:
        assert "\n" not in str(error)
        return False
    assert image.mode == "RGB"
    assert isinstance(image, Image.Image)
    return True


@settings(max_examples=examples(1500), database=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, len(sound()) - 1))
def test_damage_gives_an_image_or_an_image_error(seed: int, which: int) -> None:
    loads(mutated(sound()[which], random.Random(seed)))


@settings(max_examples=examples(600), database=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["HEIF", "AVIF"]))
def test_damaged_photos_of_phones_give_an_image_or_an_image_error(seed: int, form: str) -> None:
    pytest.importorskip("pillow_heif")
    load.read_heif()
    loads(mutated(phone_photo(form), random.Random(seed)), FORMATS)
