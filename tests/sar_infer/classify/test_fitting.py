"""A class model follows the photos of its bank: what a bank is taught counts in the next answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sar_infer import Classifier
from sar_infer.bank import ClassBank, PhotoSet, edits
from sar_infer.class_model.model import ClassModel
from sar_infer.classify.fitting import pinned

CLOTHES = Path("examples/clothes/train")
CLOSED = ("level", "centre", "text_centre", "slope", "prior", "broad", "photos")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.open(device="cpu", threads=1)


@pytest.fixture(scope="module")
def photos(classifier: Classifier) -> dict[str, PhotoSet]:
    return {one.name: classifier.embed_photos(sorted(one.iterdir())[:10]) for one in sorted(CLOTHES.iterdir())}


def some(photos: PhotoSet, numbers: range) -> PhotoSet:
    digests = [photos.digests[number] for number in numbers]
    return PhotoSet.of(digests, photos.rows[numbers.start : numbers.stop])


def used(classifier: Classifier, bank: ClassBank) -> ClassModel:
    return classifier.class_set(bank=bank).model


def test_closed_forms_are_of_the_photos_as_they_are(classifier: Classifier, photos: dict[str, PhotoSet]) -> None:
    few = {name: some(one, range(6)) for name, one in photos.items()}
    bank, fitting = classifier.make_bank({name: (name,) for name in photos}, few, by="a test")
    assert fitting is not None
    first = used(classifier, bank)
    assert all(np.array_equal(getattr(first, name), getattr(fitting.fitted.model, name)) for name in CLOSED)

    name = next(iter(photos))
    taught = edits.add_photos(bank, {name: some(photos[name], range(6, 10))})
    now, anew = used(classifier, taught), classifier.fit_model(taught).fitted.model  # all of it computed from nothing
    assert now.weights.tolist() == first.weights.tolist() != anew.weights.tolist()
    for field in CLOSED:
        np.testing.assert_allclose(getattr(now, field), getattr(anew, field), rtol=1e-5, atol=1e-7, err_msg=field)
    np.testing.assert_allclose(now.precision, anew.precision, rtol=1e-4, atol=1e-2)

    for back in (edits.rollback(taught, 2), edits.forget_photos(taught, name, photos[name].digests[6:10])):
        again = used(classifier, back)
        assert again.photos == first.photos
        np.testing.assert_allclose(again.precision, first.precision, rtol=1e-4, atol=1e-2)


def test_a_model_whose_photos_are_not_at_hand_stays(classifier: Classifier, photos: dict[str, PhotoSet]) -> None:
    """A bundle has its photos only as sums, so nothing is computed from the few that are added."""
    bank, _ = classifier.make_bank({name: (name,) for name in photos}, photos, by="a test")
    name = next(iter(photos))
    bare = edits.add_photos(bank.settled(), {name: PhotoSet.of([bytes(32)], photos[name].rows[:1])})
    assert used(classifier, bare).precision.tolist() == used(classifier, bank).precision.tolist()


def test_a_bundle_of_a_bank_ranks_as_the_bank(classifier: Classifier, photos: dict[str, PhotoSet]) -> None:
    """It has no photo, so the model goes along as it ranks, not as it was fitted."""
    few = {name: some(one, range(6)) for name, one in photos.items()}
    bank, _ = classifier.make_bank({name: (name,) for name in photos}, few, by="a test")
    name, rows = next(iter(photos)), np.concatenate([one.rows for one in photos.values()])
    taught = edits.add_photos(bank, {name: photos[name]})
    given = pinned(taught, classifier.bundle.bank, classifier.bundle.trained).settled()
    one, two = (classifier.logits(rows, classifier.class_set(bank=each)) for each in (taught, given))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
    assert not np.allclose(one, classifier.logits(rows, classifier.class_set(bank=taught.settled())), atol=1e-3)
