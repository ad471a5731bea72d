"""Opening an engine: the bundle, what encodes and decodes, and their sizes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from sar_infer.bundle.bundle import default_bundle, on_hub, open_bundle
from sar_infer.bundle.manifest import FileEntry
from sar_infer.classifier import Classifier
from sar_infer.encoders.encoders import ImageEncoder
from sar_infer.encoders.self_test import SelfTest
from sar_infer.encoders.sessions import give_back_memory
from sar_infer.encoders.waiting import TRIAL_SECONDS, in_background
from sar_infer.errors import InputError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.encoding import Encode
from sar_infer.server.model.engine import Engine
from sar_infer.server.model.memory import DecodeMemory
from sar_infer.server.model.process import Graph, Model, stacked
from sar_infer.server.model.sizing import (
    decode_memory,
    in_processes,
    measured,
    threads_alone,
    workers_and_threads,
)
from sar_infer.server.model.workers import Workers
from sar_infer.server.settings import Settings


def open_engine(
    settings: Settings,
    metrics: Metrics,
    before: Engine | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Engine:
    """Open the bundle that the settings name, check what it computes, and warm it.

    Args:
        settings: Name the bundle, the device and the precision.
        metrics: Times the phases.
        before: The engine that it will replace. Its memory for images is taken over, and its sizes too if the image
            encoder is the same.
        meanwhile: Called in a thread while the processes start.

    Raises:
        BundleError: missing, damaged, or it computes something else than at export.
        DeviceError: the device is not available.
        InputError: the bundle has no graphs in the precision of the settings, or no statistics for their offset; or
            its encoder's images have more pixels than the settings allow.
    """
    location = default_bundle() if settings.bundle is None else settings.bundle
    if not on_hub(location):
        location = Path(location).resolve()
    number, threads = workers_and_threads(settings)
    bundle = open_bundle(location)
    if (least := bundle.manifest.preprocess.size**2) > settings.limits.pixels:
        raise InputError(
            f"--max-megapixels {settings.limits.pixels / 1e6:g}: the encoder's own images have "
            f"{least / 1e6:.6g} megapixels; expected no less"
        )
    classifier = Classifier(
        bundle,
        device=settings.device,
        threads=threads,
        spin=False,
        precision=settings.precision,
        offset=settings.offset,
    )
    with contextlib.ExitStack() as opened:  # which ends the processes if anything fails
        workers = None
        if in_processes(settings, _image_file(classifier).size):
            workers = _workers(classifier, settings, number, threads, metrics)
            opened.callback(workers.close)
        engine = _opened(classifier, settings, metrics, before, workers, meanwhile, opened)
        opened.pop_all()
        return engine


def _opened(
    classifier: Classifier,
    settings: Settings,
    metrics: Metrics,
    before: Engine | None,
    workers: Workers | None,
    meanwhile: Callable[[], object],
    opened: contextlib.ExitStack,
) -> Engine:
    encode: Encode
    encode_alone: Encode
    threads = threads_alone(settings, _image_file(classifier).size)
    alone = None
    if workers is not None:
        starting = in_background(workers.start)  # before anything else takes the cores
    other = in_background(meanwhile)
    if workers is None:
        provider = classifier.start(names=True, self_test=True)
        encode = functools.partial(classifier.encode, seconds=TRIAL_SECONDS)
        alone = ImageEncoder(
            _graph(classifier), classifier.bundle.manifest.embed_dim, settings.device, threads, spin=False
        )
        encode_alone = stacked(alone, TRIAL_SECONDS)
    else:
        classifier.start_names(self_test=True)
        classifier.close_images()
        starting.result()
        provider, encode = workers.provider, workers.encode
        encode_alone = functools.partial(workers.encode, alone=True)
    if before is not None and _image_file(before.classifier) == _image_file(classifier):
        sizes = before.sizes
    else:
        pixels, graph = classifier.self_test.pixels, None if workers is None else _image_file(classifier).size
        sizes = measured(settings, provider, encode, pixels, threads, encode_alone, graph)
    if workers is not None:
        workers.settle(sizes.alone > 0, sizes.max_batch)
    decoders = None
    if sizes.decoders:
        decoders = Workers(_model(classifier, settings), sizes.decoders, metrics)
        opened.callback(decoders.close)
        decoders.start()
    other.result()
    give_back_memory()
    if before is None:
        pids = [pid for one in (workers, decoders) if one is not None for pid in one.pids]
        memory = DecodeMemory(decode_memory(settings, pids), settings.limits.seconds / 2, metrics)
    else:
        memory = before.memory
    alone = alone if sizes.alone else None
    return Engine(classifier, sizes, settings.limits, metrics, memory, workers, alone, decoders)


def _workers(classifier: Classifier, settings: Settings, number: int, threads: int, metrics: Metrics) -> Workers:
    """Return the processes for a bundle, not yet started; each is tested as the encoder of one process would be."""
    bundle, choice = classifier.bundle, classifier.choice
    graph = Graph(
        path=str(_graph(classifier)),
        sha256=_image_file(classifier).sha256,
        embed_dim=bundle.manifest.embed_dim,
        device=settings.device,
        threads=threads,
        alone=threads_alone(settings, _image_file(classifier).size),
        probe=classifier.self_test.image,
        trial_seconds=TRIAL_SECONDS,
    )
    model = dataclasses.replace(_model(classifier, settings), graph=graph)
    return Workers(model, number, metrics, lambda begun: SelfTest(bundle, choice, lambda _: begun.row).run())


def _model(classifier: Classifier, settings: Settings) -> Model:
    """Return the model of processes that only decode."""
    limits = settings.limits
    return Model(classifier.bundle.manifest.preprocess, limits.formats, limits.pixels, limits.image_seconds)


def _graph(classifier: Classifier) -> Path:
    return classifier.bundle.path / classifier.choice.image


def _image_file(classifier: Classifier) -> FileEntry:
    return classifier.bundle.manifest.files[classifier.choice.image]
