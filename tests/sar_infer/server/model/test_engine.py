from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import SIZE, image_graph, reseal
from support.examples import examples
from support.precisions import broken, turned

from sar_infer import Classifier
from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import default_bundle, open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, SelfTestVector
from sar_infer.encoders.self_test import self_test_image
from sar_infer.errors import BundleError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.banks import Banks
from sar_infer.server.model.engine import Engine
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.settings import Limits, Settings

BOUND = 2e-6
"""Tolerance between an image's unit row alone and in a batch, which may change the order of fp32 sums."""


@pytest.fixture(scope="module")
def mini() -> Classifier:
    return Classifier(open_bundle(default_bundle()), device="cpu", threads=2, spin=False)


@pytest.fixture(scope="module")
def images(mini: Classifier) -> list[np.ndarray]:
    size = mini.bundle.manifest.preprocess.size
    coarse = np.random.default_rng(3).integers(0, 256, (10, 8, 8, 3), np.uint8)
    return [np.kron(p, np.ones((size // 8, size // 8, 1), np.uint8)) for p in coarse]


@pytest.fixture(scope="module")
def alone(mini: Classifier, images: list[np.ndarray]) -> Floats:
    rows = mini.embed_images(images, batch_size=1)
    distances = np.abs(rows[:, None] - rows[None]).max(axis=2) + np.eye(10)
    assert distances.min() > 1000 * BOUND, "no other image's row would be noticed"
    return rows


@settings(max_examples=examples(25))
@given(
    order=st.lists(st.integers(0, 9), min_size=1, max_size=16),
    workers=st.integers(1, 3),
    max_batch=st.sampled_from([1, 2, 3, 8]),
)
def test_answers_depend_neither_on_company_nor_order_nor_batch_size(
    mini: Classifier,
    images: list[np.ndarray],
    alone: Floats,
    order: list[int],
    workers: int,
    max_batch: int,
) -> None:
    async def go() -> Floats:
        engine = Engine(
            mini, Banks(Settings(), mini, Metrics()), Sizes(False, workers, 1, max_batch), Limits(), Metrics()
        )  # shares its classifier
        outcomes = await engine.line.each([images[i] for i in order], lambda rows: rows)
        engine.line.close()
        engine.workers.close()
        return np.array([outcome.value for outcome in outcomes])

    rows = asyncio.run(go())
    assert np.abs(rows - alone[order]).max() <= BOUND


def test_an_encoder_that_computes_something_else_is_refused(bundle_copy: Path) -> None:
    vector = Classifier.open(bundle_copy, "cpu").embed_images([self_test_image(SIZE, 5)])[0]
    stored = SelfTestVector(5, tuple(vector.tolist()))
    reseal(bundle_copy, self_test=stored)
    Engine.open(Settings(bundle=bundle_copy, device="cpu"), Metrics()).close()
    onnx.save(turned(image_graph(), "weight"), bundle_copy / IMAGE_ENCODER)
    reseal(bundle_copy, self_test=stored)
    with pytest.raises(BundleError, match=r"image_encoder\.onnx: .*cosine"):
        Engine.open(Settings(bundle=bundle_copy, device="cpu"), Metrics())
    onnx.save(broken(image_graph(), "weight"), bundle_copy / IMAGE_ENCODER)
    reseal(bundle_copy, self_test=stored)
    with pytest.raises(BundleError, match="cosine nan"):
        Engine.open(Settings(bundle=bundle_copy, device="cpu"), Metrics())


@pytest.mark.parametrize("classes", [1, 10_000])
def test_a_row_that_cannot_be_ranked_fails_alone(bundle_path: Path, classes: int) -> None:
    async def go() -> None:
        classifier = Classifier.open(bundle_path, "cpu")
        banks = Banks(Settings(), classifier, Metrics())
        engine = Engine(classifier, banks, Sizes(False, 1, 1, 4), Limits(), Metrics())
        size = engine.bundle.manifest.preprocess.size
        images = [np.full((size, size, 3), value, np.uint8) for value in (255, 0, 0)]
        (first,) = await engine.line.each(images[:1], lambda rows: rows)

        def finish(rows: Floats) -> list[int]:
            return [1 // int(not np.array_equal(row, first.value)) for row in rows]

        calls = (engine.line.each([image], finish, classes) for image in images)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers[0], ZeroDivisionError)
        assert [answer[0].value for answer in answers[1:]] == [1, 1]  # type: ignore[index]
        engine.close()

    asyncio.run(go())
