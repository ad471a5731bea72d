from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from sar_infer import Classifier
from sar_infer.bank import set_class
from sar_infer.classify.class_set import ClassSet
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.names import Names


def run(classifier: Classifier, go: Callable[[Names], Coroutine[Any, Any, None]], most: int = 100) -> Metrics:
    metrics = Metrics()
    names = Names(classifier, most, metrics)
    try:
        asyncio.run(go(names))
    finally:
        names.close()
    return metrics


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
