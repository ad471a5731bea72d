"""Statistics fitted in the span of few photos are those fitted in all dimensions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.unit import unit

from sar_infer.classifiers import left_out
from sar_infer.classifiers.fitting import fit, in_span
from sar_infer.classifiers.gaussian import TrainedClasses
from sar_infer.classifiers.left_out import ALPHAS, HANDCRAFTED, NO_RIVALS, Prompt, Rivals
from sar_infer.classifiers.left_out_confidence import fit_confidences

SIZE, CLASSES, SHOTS, SCALE = 96, 6, 9, 20.0
RNG = np.random.default_rng(0)


TRUTH = 0.6 + 0.3 * RNG.normal(size=(CLASSES + 30, SIZE))
NAMES = unit(TRUTH + 0.3 * RNG.normal(size=TRUTH.shape))
LABELS = np.repeat(np.arange(CLASSES), SHOTS)
PHOTOS = unit(TRUTH[LABELS] + 0.4 * RNG.normal(size=(len(LABELS), SIZE)))
ROWS = NAMES[:CLASSES]
NAMED = Rivals(NAMES[CLASSES:])


@pytest.mark.parametrize("rivals", [NO_RIVALS, NAMED], ids=["alone", "among names"])
def test_it_is_what_all_dimensions_give(rivals: Rivals) -> None:
    prompt, views = Prompt(HANDCRAFTED, ROWS), PHOTOS[:, None]
    choice = left_out.choose(views, LABELS, [prompt], SCALE, rivals=rivals, alphas=ALPHAS[1:])
    confidences = fit_confidences(views, LABELS, prompt, SCALE, choice, rivals=rivals)
    fitting = fit(PHOTOS, LABELS, ROWS, SCALE, rivals=rivals)
    assert in_span(PHOTOS, ROWS, rivals)[0].shape[1] < SIZE
    assert fitting.choice == choice
    assert fitting.statistics.precision.shape == (SIZE, SIZE)
    fitted = (fitting.statistics.confidence, fitting.statistics.text_confidence)
    for one, expected in zip(fitted, confidences, strict=True):
        assert one is not None and expected is not None
        tensors, others = one.tensors(), expected.tensors()
        for name in others:
            np.testing.assert_allclose(tensors[name], others[name], rtol=1e-5, atol=1e-7)


def test_products_that_logits_are_made_of_stay() -> None:
    photos, rows, rivals = in_span(PHOTOS, ROWS, NAMED)
    assert rivals.named is not None and NAMED.named is not None
    np.testing.assert_allclose(photos @ photos.T, PHOTOS @ PHOTOS.T)
    np.testing.assert_allclose(photos @ rows.T, PHOTOS @ ROWS.T)
    np.testing.assert_allclose(photos @ rivals.named.T, PHOTOS @ NAMED.named.T)
    np.testing.assert_allclose(rows @ rivals.named.T, ROWS @ NAMED.named.T)
    np.testing.assert_allclose(np.linalg.norm(rivals.named, axis=1), 1)


def test_many_photos_and_trained_rivals_keep_all_dimensions() -> None:
    many = np.concatenate([PHOTOS, PHOTOS])
    assert in_span(many, ROWS, NO_RIVALS)[0] is many
    trained = TrainedClasses(NAMES[6:8], NAMES[6:8], np.array([4, 4]), np.eye(SIZE))
    assert in_span(PHOTOS, ROWS, dataclasses.replace(NAMED, trained=trained))[0] is PHOTOS
