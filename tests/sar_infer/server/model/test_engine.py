from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.bundles import SIZE, image_graph, reseal
from support.precisions import broken, turned

from sar_infer import Classifier
from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import IMAGE_ENCODER, SelfTestVector
from sar_infer.encoders.self_test import self_test_image
from sar_infer.errors import BundleError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.engine import Engine
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.settings import Settings


def engine_of(path: Path, patch: pytest.MonkeyPatch, workers: int, max_batch: int) -> Engine:
    patch.setattr("sar_infer.server.model.engine.sizes", lambda *_: Sizes(False, workers, 1, max_batch))
    return Engine(Settings(bundle=path, device="cpu"), Metrics())


@pytest.mark.parametrize(("workers", "max_batch"), [(1, 1), (2, 3), (3, 8)])
def test_answers_depend_neither_on_company_nor_order_nor_batch_size(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, max_batch: int
) -> None:
    classifier, rng = Classifier.open(bundle_path, "cpu"), np.random.default_rng(3)
    images = [np.full((SIZE, SIZE, 3), colour, np.uint8) for colour in rng.integers(0, 256, (10, 3))]
    alone = classifier.embed_images(images, batch_size=1)
    distances = np.abs(alone[:, None] - alone[None]).max(axis=2) + np.eye(10)
    assert distances.min() > 1e-3, "no other image's row would be noticed"
    orders = [rng.integers(0, 10, count) for count in (1, 4, 16)]

    async def go() -> list[Any]:
        engine = engine_of(bundle_path, monkeypatch, workers, max_batch)
        calls = (engine.line.each([images[n] for n in order], lambda rows: rows) for order in orders)
        answers = await asyncio.gather(*calls)
        engine.close()
        return answers

    for order, outcomes in zip(orders, asyncio.run(go()), strict=True):
        np.testing.assert_allclose(np.array([one.value for one in outcomes]), alone[order], atol=2e-6)


def test_an_encoder_that_computes_something_else_is_refused(bundle_copy: Path) -> None:
    vector = Classifier.open(bundle_copy, "cpu").embed_images([self_test_image(SIZE, 5)])[0]
    stored = SelfTestVector(5, tuple(vector.tolist()))
    reseal(bundle_copy, self_test=stored)
    Engine(Settings(bundle=bundle_copy, device="cpu"), Metrics()).close()
    onnx.save(turned(image_graph(), "weight"), bundle_copy / IMAGE_ENCODER)
    reseal(bundle_copy, self_test=stored)
    with pytest.raises(BundleError, match=r"image_encoder\.onnx: .*cosine"):
        Engine(Settings(bundle=bundle_copy, device="cpu"), Metrics())
    onnx.save(broken(image_graph(), "weight"), bundle_copy / IMAGE_ENCODER)
    reseal(bundle_copy, self_test=stored)
    with pytest.raises(BundleError, match="cosine nan"):
        Engine(Settings(bundle=bundle_copy, device="cpu"), Metrics())


@pytest.mark.parametrize("classes", [1, 10_000])
def test_a_row_that_cannot_be_ranked_fails_alone(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    async def go() -> None:
        engine = engine_of(bundle_path, monkeypatch, 1, 4)
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
