"""The four findings, on names and on embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from support.photos import SHARED, needs_shared

from sar_infer import Classifier
from sar_infer.evaluation import Finding, duplicates, photo_findings
from sar_infer.evaluation.findings import too_long

DIM = 64
NAMES = ("hat", "shoe", "dress")


def unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


CENTRES = unit(np.random.default_rng(0).normal(size=(3, DIM)))


def photos(owners: list[int], centres: npt.NDArray[np.float32] = CENTRES) -> npt.NDArray[np.float32]:
    """Photos around the centres of these classes."""
    return unit(centres[owners] + np.random.default_rng(1).normal(size=(len(owners), DIM)) * 0.5 / np.sqrt(DIM))


def found(rows: npt.NDArray[np.float32], owners: list[int]) -> list[Finding]:
    of = np.array(owners)
    means = np.array([rows[of == number].mean(0) for number in range(3)])
    return photo_findings(NAMES, means, np.bincount(of), rows, of, [f"{n}.jpg" for n in range(len(owners))])


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("tee shirt", "Tee-Shirt"),
        ("CAFÉ", "cafe"),
        ("T-shirt", "T shirt"),
        ("tench", "Tinca"),
    ],
)
def test_a_name_spelled_almost_like_a_known_one_is_a_duplicate(name: str, owner: str) -> None:
    known = {"Tee-Shirt": "Tee-Shirt", "cafe": "cafe", "T shirt": "T shirt", "Tench!": "Tinca"}
    (finding,) = duplicates([name], known)
    assert (finding.kind, finding.name, finding.suggestion) == ("duplicate", name, owner)


def test_the_same_class_and_other_words_are_no_duplicates() -> None:
    assert duplicates(["Orange", "oranges", "dress shoe", "犬", "#", "*"], {"orange": "orange"}) == []
    (finding,) = duplicates(["ice cream", "ice-cream"], {})
    assert (finding.name, finding.suggestion) == ("ice-cream", "ice cream")


def test_a_name_above_the_tokenizer_s_length() -> None:
    bundle = Classifier.open().bundle
    spec = bundle.manifest.tokenizer
    words = ["dog"] * (spec.max_name_tokens - len(bundle.tokenizer.encode(spec.suffix)))
    fits, long = " ".join(words), " ".join([*words, "and", "cat"])
    assert too_long({fits: (fits,)}, bundle.tokenizer, spec) == []
    (finding,) = too_long({"x": ("x", long)}, bundle.tokenizer, spec)
    assert (finding.kind, finding.name, finding.suggestion) == ("too-long", "x", fits)
    assert "'and cat' would be lost" in finding.message


def test_photos_in_their_class_give_no_finding() -> None:
    owners = [0] * 8 + [1] * 8 + [2] * 8
    assert found(photos(owners), owners) == []


def test_a_photo_in_the_wrong_class_is_named_with_the_class_that_it_resembles() -> None:
    shown = [0] * 8 + [1] * 8 + [2] * 8
    owners = [0] * 7 + [2] + [1] * 8 + [2] * 8
    (finding,) = found(photos(shown), owners)
    assert (finding.kind, finding.name, finding.suggestion) == ("wrong-class", "dress", "hat")
    assert "'7.jpg' looks like 'hat'" in finding.message


def test_of_three_photos_none_is_said_to_be_wrong() -> None:
    owners = [0] * 8 + [1] * 8 + [2] * 3
    assert found(photos([0] * 8 + [1] * 8 + [2, 2, 0]), owners) == []


def test_two_classes_with_the_same_photos_are_a_confused_pair() -> None:
    owners = [0] * 8 + [1] * 8 + [2] * 8
    (finding,) = found(photos(owners, CENTRES[[0, 0, 2]]), owners)
    assert finding.kind == "confused"
    assert {finding.name, finding.suggestion} == {"hat", "shoe"}


@needs_shared
@pytest.mark.slow
def test_on_garments_planted_photos_are_found_and_few_others() -> None:
    classifier = Classifier.open(threads=1)
    folders = sorted(path for path in (SHARED / "clothes" / "train").iterdir() if path.is_dir())[:6]
    rows = np.concatenate([classifier.embed_images(sorted(folder.iterdir())[:12]) for folder in folders])
    names, right = [folder.name for folder in folders], np.repeat(np.arange(6), 12)
    hits = total = 0
    for number in range(0, 72, 6):
        owners = right.copy()
        owners[number] = (owners[number] + 2) % 6
        means = np.array([rows[owners == one].mean(0) for one in range(6)])
        labels = [str(one) for one in range(72)]
        findings = photo_findings(names, means, np.bincount(owners), rows, owners, labels)
        wrong = [finding.message.split("'")[1] for finding in findings if finding.kind == "wrong-class"]
        hits, total = hits + (str(number) in wrong), total + len(wrong)
    assert hits >= 6
    assert total - hits <= 24  # two of seventy-two
