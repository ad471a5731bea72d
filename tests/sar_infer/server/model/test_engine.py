from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import SIZE, reseal, write_bundle
from support.precisions import add_precision, variant

from sar_infer import Classifier
from sar_infer.artefact import Precision, Probe
from sar_infer.bundle import default_bundle, open_bundle
from sar_infer.errors import BundleError, InputError
from sar_infer.probe import MIN_COSINE, probe_picture
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.engine import Engine, Floats
from sar_infer.server.model.sizing import Sizes
from sar_infer.server.settings import Limits, Settings

BOUND = 2e-6
"""Between a picture's unit row alone and in company: the last digits of fp32 sums, whose order a batch may change."""


@pytest.fixture(scope="module")
def mini() -> Classifier:
    return Classifier(open_bundle(default_bundle()), device="cpu", threads=2, spin=False)


@pytest.fixture(scope="module")
def pictures(mini: Classifier) -> Sequence[Floats]:
    size = mini.bundle.manifest.preprocess.size
    coarse = np.random.default_rng(3).random((10, 3, 8, 8), dtype=np.float32)
    return [np.kron(p, np.ones((size // 8, size // 8), dtype=np.float32)) * 2 - 1 for p in coarse]


@pytest.fixture(scope="module")
def alone(mini: Classifier, pictures: Sequence[Floats]) -> Floats:
    return np.concatenate([mini.encode([picture]) for picture in pictures])


@settings(max_examples=25, deadline=None)
@given(
    order=st.lists(st.integers(0, 9), min_size=1, max_size=16),
    workers=st.integers(1, 3),
    max_batch=st.sampled_from([1, 2, 3, 8]),
    decoders=st.integers(0, 2),
)
def test_answers_depend_neither_on_company_nor_order_nor_batch_size(
    mini: Classifier,
    pictures: Sequence[Floats],
    alone: Floats,
    order: list[int],
    workers: int,
    max_batch: int,
    decoders: int,
) -> None:
    async def go() -> Floats:
        engine = Engine(mini, Sizes(workers, max_batch, decoders), Limits(), Metrics())
        outcomes = await engine.each([pictures[i] for i in order], lambda row: row[0])
        engine.close()
        return np.array([outcome.value for outcome in outcomes])

    found = asyncio.run(go())
    assert np.abs(found - alone[order]).max() <= BOUND


def test_the_bound_tells_pictures_apart(alone: Floats) -> None:
    distances = np.abs(alone[:, None] - alone[None]).max(axis=2) + np.eye(10)
    assert distances.min() > 1000 * BOUND


def test_class_sets_are_kept_while_the_bank_is_the_same(bundle_path: Path) -> None:
    async def go() -> None:
        engine = Engine(Classifier.open(bundle_path, "cpu"), Sizes(1, 1, 0), Limits(), Metrics())
        bank = engine.bundle.bank
        first = await engine.class_set({"violet": ("violet",)}, False, bank)
        assert await engine.class_set({"violet": ("violet",)}, False, bank) is first
        assert await engine.class_set({"violet": ("violet",)}, True, bank) is not first
        other = type(bank)(bank.names[:2], bank.embeddings[:2], bank.encoder_digest)
        whole = await engine.class_set({}, False, other)
        assert whole.embeddings is other.embeddings
        assert await engine.class_set({}, False, other) is whole
        assert await engine.class_set({}, False, bank) is not whole
        await engine.class_set({"teal": ("teal",)}, False, other)
        assert [digest for digest, _, _ in engine._sets] == [other.content_digest]
        engine.close()

    asyncio.run(go())


def test_class_sets_that_are_kept_are_limited_by_their_rows(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_infer.server.model.engine._SET_ROWS", 20)

    async def go() -> None:
        engine = Engine(Classifier.open(bundle_path, "cpu"), Sizes(1, 1, 0), Limits(), Metrics())
        for number in range(12):
            await engine.class_set({f"name {number}": (f"name {number}",)}, False, engine.bundle.bank)
        kept = [given[0][0] for _, given, _ in engine._sets]
        assert kept == [f"name {number}" for number in range(12 - len(kept), 12)]
        assert sum(len(s.names) for s in engine._sets.values()) <= 20
        engine.close()

    asyncio.run(go())


def test_an_encoder_that_computes_something_else_is_refused(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = probe_picture(Classifier.open(bundle_path).bundle.manifest.preprocess.size, 5)
    vector = Classifier.open(bundle_path, "cpu").embed_images([picture])[0]
    path = write_bundle(tmp_path / "probed", probe=Probe(5, tuple(vector.tolist())))
    Engine.open(Settings(bundle=path, device="cpu"), Metrics()).close()
    honest = Classifier.encode
    monkeypatch.setattr(Classifier, "encode", lambda self, pixels: honest(self, pixels)[:, ::-1])
    with pytest.raises(BundleError, match="another vector than at export"):
        Engine.open(Settings(bundle=path, device="cpu"), Metrics())
    monkeypatch.setattr(Classifier, "encode", lambda self, pixels: honest(self, pixels) * np.float32(np.nan))
    for bundle in (path, bundle_path):
        with pytest.raises(BundleError, match="cosine nan"):
            Engine.open(Settings(bundle=bundle, device="cpu"), Metrics())


def test_callers_who_ask_for_the_same_new_names_wait_for_one_encoding(bundle_path: Path) -> None:
    async def go() -> None:
        metrics = Metrics()
        engine = Engine(Classifier.open(bundle_path, "cpu"), Sizes(1, 1, 0), Limits(), metrics)
        names = {f"new {number}": (f"new {number}",) for number in range(20)}
        gone = asyncio.ensure_future(engine.class_set(names, True, engine.bundle.bank))
        await asyncio.sleep(0)
        gone.cancel()
        sets = await asyncio.gather(*(engine.class_set(names, True, engine.bundle.bank) for _ in range(5)))
        assert all(found is sets[0] for found in sets)
        assert metrics.registry.get_sample_value("sar_names_embedded_total") == 20
        engine.close()

    asyncio.run(go())


def test_an_error_waits_for_the_other_pictures_of_its_call(bundle_path: Path) -> None:
    """Else they would run on uncounted, in an engine that may be closed by then."""

    async def go() -> None:
        engine = Engine(Classifier.open(bundle_path, "cpu"), Sizes(2, 1, 0), Limits(), Metrics())
        size = engine.bundle.manifest.preprocess.size
        ended = []

        def finish(row: Floats) -> bool:
            if not ended:
                ended.append("first")
                raise ZeroDivisionError
            ended.append("other")
            return True

        with pytest.raises(ZeroDivisionError):
            await engine.each([np.zeros((3, size, size), np.float32)] * 6, finish)
        assert len(ended) == 6
        engine.close()

    asyncio.run(go())


def test_an_engine_that_is_closed_is_free_at_once(bundle_path: Path) -> None:
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        engine = Engine(Classifier.open(bundle_path, "cpu"), Sizes(1, 1, 0), Limits(), Metrics())
        classifier = weakref.ref(engine.classifier)
        engine.close()
        del engine
        assert classifier() is None
    finally:
        gc.enable()


def test_a_smaller_graph_is_probed_against_what_it_gave_at_export(bundle_copy: Path) -> None:
    bundle = open_bundle(add_precision(bundle_copy))
    row, small = (
        Classifier(bundle, device="cpu", precision=asked).embed_images([probe_picture(SIZE, 5)])[0]
        for asked in ("fp32", "int8")
    )
    cosine = float(row @ small)
    assert 0.9 < cosine < MIN_COSINE - 0.002
    settings = Settings(bundle=bundle_copy, device="cpu", precision="int8", workers=1, max_batch=2)
    for expected, good in ((cosine, True), (cosine + 0.02, False), (None, False)):
        graphs = Precision(variant("image_encoder.int8.onnx", probe_cosine=expected))
        reseal(bundle_copy, precisions={"int8": graphs}, probe=Probe(5, tuple(row.tolist())))
        if good:
            engine = Engine.open(settings, Metrics())
            assert engine.classifier.choice.precision == "int8"
            assert engine.least_cosine == pytest.approx(cosine - 0.01)
            engine.close()
        else:
            with pytest.raises(BundleError, match="another vector than at export"):
                Engine.open(settings, Metrics())


def test_a_precision_that_the_bundle_lacks_is_refused(bundle_path: Path) -> None:
    with pytest.raises(InputError, match="precision int8: this bundle has fp32; sar-export"):
        Engine.open(Settings(bundle=bundle_path, device="cpu", precision="int8"), Metrics())
