"""Suggestions of the shipped bundle for photos of garments, as a user gets them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sar_infer import Classifier
from sar_infer.bank import PhotoSet

CLOTHES = Path(__file__).parents[3] / "examples" / "clothes"
TAUGHT, OTHERS = ("trousers", "hat", "dress"), ("shoes", "jacket")


@pytest.fixture(scope="module")
def mini() -> Classifier:
    return Classifier.open()


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    return [path for name in (*TAUGHT, *OTHERS) for path in sorted((CLOTHES / "test" / name).glob("*.jpg"))[:10]]


def test_garments_that_nobody_taught_are_groups_and_others_are_like_theirs(
    mini: Classifier, photos: list[Path]
) -> None:
    rows = mini.embed_images(photos)
    shown: dict[str, PhotoSet] = {
        name: mini.embed_photos(sorted((CLOTHES / "train" / name).glob("*.jpg"))[:8]) for name in TAUGHT
    }
    classes = mini.class_set(only=True, photos=shown)
    content = mini.suggest(rows, classes, [path.parent.name for path in photos])
    assert content["photos"] == 50
    assert content["classes"] == 3
    assert Counter(name for group in content["groups"] for name in group["photos"]) == dict.fromkeys(
        (*TAUGHT, *OTHERS), 10
    )
    new = [group for group in content["groups"] if group["like"] is None]
    assert {Counter(group["photos"]).most_common(1)[0][0] for group in new} >= set(OTHERS)
    like = [group for group in content["groups"] if group["like"] is not None]
    assert {"trousers", "hat"} <= {group["like"] for group in like} <= set(TAUGHT)
    right = sum(Counter(group["photos"])[group["like"]] for group in like)
    assert right >= 0.9 * sum(group["size"] for group in like)
    assert all({answer["label"] for answer in group["nearest"]} <= set(TAUGHT) for group in content["groups"])
    assert len(content["labels"]) == 20
    assert all(len(label["answers"]) == 2 for label in content["labels"])


def test_a_bank_of_names_alone_has_groups_too(mini: Classifier, photos: list[Path]) -> None:
    content = mini.suggest(mini.embed_images(photos), mini.class_set(), [path.parent.name for path in photos])
    assert {Counter(group["photos"]).most_common(1)[0][0] for group in content["groups"]} == {*TAUGHT, *OTHERS}
    nothing = mini.suggest(np.zeros((0, mini.bundle.manifest.embed_dim), np.float32), mini.class_set(), [])
    assert (nothing["photos"], nothing["groups"], nothing["labels"]) == (0, [], [])
