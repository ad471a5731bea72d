"""Rows of an embedder's own, for many threads, until it is stopped; `test_classifier.py` has the rest."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.bundles import BANK_NAMES, ENCODER_DIGEST, SIZE, name_rows
from support.hostile_graphs import endless

from sar_infer import BundleError, Classifier, ClassNameError
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_infer.encoders.cache import EmbeddingCache

PIXELS = np.random.default_rng(0).normal(size=(40, 3, SIZE, SIZE)).astype(np.float32)


def fresh(folder: Path) -> Classifier:
    """Return an embedder of its own, whose sessions are closed and whose cache is empty."""
    return Classifier(open_bundle(folder), device="cpu", cache=EmbeddingCache())


def test_rows_of_names_are_never_those_of_the_bank(bundle_path: Path) -> None:
    name = BANK_NAMES[0]
    bank = ClassBank.of((name,), name_rows(["another thing"]), ENCODER_DIGEST)
    classifier = Classifier.open(bundle_path, bank=bank)
    np.testing.assert_allclose(classifier.embed_names([name]), name_rows([name]), atol=1e-6)


def test_rows_that_a_caller_changes_are_not_those_of_the_cache(bundle_path: Path) -> None:
    embedder = fresh(bundle_path)
    for _ in range(2):
        rows = embedder.embed_names(["owl", "emu"])
        np.testing.assert_allclose(rows, name_rows(["owl", "emu"]), atol=1e-6)
        rows[:] = 5


@pytest.mark.parametrize("bad", ["", "x" * 500], ids=["empty", "too long"])
def test_one_bad_name_or_phrase_is_refused_before_any_is_encoded(bundle_path: Path, bad: str) -> None:
    class Empty(EmbeddingCache):
        def put(self, key: tuple[str, str], row: np.ndarray) -> None:
            raise AssertionError(f"{key} was encoded")

    classifier = Classifier(open_bundle(bundle_path), device="cpu", cache=Empty())
    with pytest.raises(ClassNameError):
        classifier.embed_names(["owl", bad])
    with pytest.raises(ClassNameError):
        classifier.embed_phrases([("owl",), ("emu", bad)])


def test_threads_that_share_it_get_each_their_own_rows(bundle_path: Path) -> None:
    threads, shared = 8, fresh(bundle_path)
    names = [[f"thing {(number + step) % 12}" for step in range(5)] for number in range(threads)]
    start = threading.Barrier(threads)

    def embed(number: int) -> tuple[np.ndarray, np.ndarray]:
        start.wait()
        return shared.embed_inputs([*PIXELS[number * 5 :][:5]]), shared.embed_names(names[number])

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(embed, range(threads)))
    expected = fresh(bundle_path).embed_inputs([*PIXELS])
    for number, (images, of_names) in enumerate(results):
        np.testing.assert_allclose(images, expected[number * 5 :][:5], atol=1e-5)
        np.testing.assert_allclose(of_names, name_rows(names[number]), atol=1e-6)


@pytest.mark.parametrize("encoder", [IMAGE_ENCODER, NAME_ENCODER])
def test_stop_ends_a_call_that_runs_and_all_later_ones(bundle_copy: Path, encoder: str) -> None:
    endless(bundle_copy, encoder)
    classifier = fresh(bundle_copy)
    classifier.start(names=True)
    calls = {
        IMAGE_ENCODER: lambda: classifier.embed_inputs([PIXELS[0]]),
        NAME_ENCODER: lambda: classifier.embed_names(["owl"]),
    }
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(calls[encoder])
        while not running.running():
            time.sleep(0.01)
        classifier.stop()
        with pytest.raises(BundleError, match="onnxruntime cannot run this graph"):
            running.result(60)
    for later in calls.values():
        with pytest.raises(BundleError, match="onnxruntime cannot run this graph"):
            later()
