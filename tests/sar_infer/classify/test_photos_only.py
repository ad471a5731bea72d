"""A class whose name means nothing, on the shipped bundle and photos of garments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sar_infer import Classifier

CLOTHES = Path(__file__).parents[3] / "examples" / "clothes"


def photos(split: str, garment: str) -> list[Path]:
    return sorted((CLOTHES / split / garment).glob("*.jpg"))[:6]


def test_its_photos_predict_it_among_a_thousand_names() -> None:
    """In 8 dimensions, as in the tests of commands and routes, random names outweigh photos."""
    mini = Classifier.open()
    shown = dataclasses.replace(mini.embed_photos(photos("train", "hat")), photos_only=True)
    classes = mini.class_set(photos={"SKU-12345": shown}, only=False)
    rows = mini.embed_images([*photos("test", "hat"), *photos("test", "shoes")])
    predicted = [result.predictions[0].label == "SKU-12345" for result in mini.decide(classes, 1)(rows)]
    assert sum(predicted[:6]) >= 4
    assert sum(predicted[6:]) == 0
