from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from support.bundles import name_rows

from sar_infer import Classifier
from sar_infer.bank import PhotoSet, add, set_class
from sar_infer.classify.class_set import ClassSet
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.names import Names
from sar_infer.server.problems import Problem


def run(classifier: Classifier, go: Callable[[Names], Coroutine[Any, Any, None]], most: int = 100) -> Metrics:
    metrics = Metrics()
    names = Names(classifier, most, metrics)
    try:
        asyncio.run(go(names))
    finally:
        names.close()
    return metrics


def test_class_sets_are_kept_while_the_bank_is_the_same(classifier: Classifier) -> None:
    async def go(names: Names) -> None:
        bank = classifier.bank
        first = await names.class_set({"violet": ("violet",)}, False, bank)
        assert await names.class_set({"violet": ("violet",)}, False, bank) is first
        assert await names.class_set({"violet": ("violet",)}, True, bank) is not first
        other = type(bank).of(bank.names[:2], bank.embeddings[:2], bank.encoder_digest)
        whole = await names.class_set({}, False, other)
        assert whole.several is other.several
        assert await names.class_set({}, False, other) is whole
        assert await names.class_set({}, False, bank) is not whole
        await names.class_set({"teal": ("teal",)}, False, other)
        assert await names.class_set({"violet": ("violet",)}, False, bank) is not first

    run(classifier, go)


def test_a_kept_class_set_does_not_outlive_what_is_known_of_the_classes(classifier: Classifier) -> None:
    """Change what leaves names, rows and photos, and so the digest of the bank, as they are."""

    async def go(names: Names) -> None:
        new, bank = {"violet": ("violet",)}, classifier.bank
        assert (await names.class_set(new, False, bank)).background is None
        for settings in ({"background": True}, {"threshold": 0.5}, {"aliases": ("violet",)}):
            changed = set_class(bank, "red", **settings)
            assert changed.content_digest == bank.content_digest
            found, expected = await names.class_set(new, False, changed), classifier.class_set(new, bank=changed)
            assert list(found.names) == list(expected.names)
            np.testing.assert_array_equal(found.background, expected.background)
            np.testing.assert_array_equal(found.thresholds, expected.thresholds)

    run(classifier, go)


def test_class_sets_that_are_kept_are_limited_by_their_rows(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sar_infer.server.model.names._SET_ROWS", 20)

    async def go(names: Names) -> None:
        async def asked(number: int) -> ClassSet:
            return await names.class_set({f"name {number}": (f"name {number}",)}, False, classifier.bank)

        made = [await asked(number) for number in range(12)]
        assert {len(classes.names) for classes in made} == {5}
        for number in (8, 9, 10, 11):
            assert await asked(number) is made[number]
        assert await asked(7) is not made[7]

    run(classifier, go)


def test_callers_who_ask_for_the_same_new_names_wait_for_one_encoding(classifier: Classifier) -> None:
    async def go(names: Names) -> None:
        new = {f"new {number}": (f"new {number}",) for number in range(20)}
        gone = asyncio.ensure_future(names.class_set(new, True, classifier.bank))
        await asyncio.sleep(0)
        gone.cancel()
        sets = await asyncio.gather(*(names.class_set(new, True, classifier.bank) for _ in range(5)))
        assert all(found is sets[0] for found in sets)

    metrics = run(classifier, go)
    assert metrics.registry.get_sample_value("sar_names_embedded_total") == 20


def test_embedded_names_come_with_their_tokens(classifier: Classifier) -> None:
    async def go(names: Names) -> None:
        rows, tokens = await names.embed(["owl", "grey thing"])
        np.testing.assert_allclose(rows, name_rows(["owl", "grey thing"]), atol=1e-6)
        assert tokens == 2 + 3  # each has the suffix, a full stop

    run(classifier, go)


def test_a_lone_request_is_always_taken_and_a_queue_is_bounded(classifier: Classifier) -> None:
    none = np.empty((0, classifier.bank.embeddings.shape[1]), np.float32)
    photos = PhotoSet.of(np.ones((1, 32), np.uint8), classifier.bank.embeddings[:1])
    photographed = add(classifier.bank, [], none, photos={"red": photos})

    async def go(names: Names) -> None:
        first = asyncio.ensure_future(names.embed(["a", "b", "c", "d", "e"]))
        await asyncio.sleep(0)
        with pytest.raises(Problem, check=lambda problem: problem.status == 429):
            await names.embed(["f"])
        assert len((await names.class_set({}, False, photographed)).names) == 4  # nothing new to encode
        await first
        await names.embed(["f"])

    run(classifier, go, most=2)
