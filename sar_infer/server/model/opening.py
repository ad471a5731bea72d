"""Opening an engine: the bundle, and what decodes and encodes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from sar_infer.bundle.bundle import default_bundle, on_hub, open_bundle
from sar_infer.classifier import Classifier
from sar_infer.encoders.precision import choose
from sar_infer.encoders.self_test import SelfTest
from sar_infer.encoders.sessions import give_back_memory
from sar_infer.encoders.waiting import TRIAL_SECONDS, in_background
from sar_infer.errors import InputError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.engine import Engine
from sar_infer.server.model.process import Model
from sar_infer.server.model.sizing import sizes
from sar_infer.server.model.workers import Workers
from sar_infer.server.settings import Settings


def open_engine(settings: Settings, metrics: Metrics, meanwhile: Callable[[], object] = lambda: None) -> Engine:
    """Open the bundle that the settings name, check what it computes, and warm it.

    Args:
        settings: Name the bundle, the device and the precision.
        metrics: Times the phases.
        meanwhile: Called in a thread while the processes start.

    Raises:
        BundleError: missing, damaged, or it computes something else than at export.
        DeviceError: the device is not available.
        InputError: the bundle has no graphs in the precision of the settings, or its encoder's images have more
            pixels than the settings allow.
    """
    location = default_bundle() if settings.bundle is None else settings.bundle
    if not on_hub(location):
        location = Path(location).resolve()
    bundle = open_bundle(location)
    if (least := bundle.manifest.preprocess.size**2) > settings.limits.pixels:
        raise InputError(
            f"max-megapixels {settings.limits.pixels / 1e6:g}: the encoder's own images have "
            f"{least / 1e6:.6g} megapixels; expected no less"
        )
    chosen = choose(bundle.manifest, settings.precision, settings.device)
    planned = sizes(settings, bundle.manifest.files[chosen.image].size)
    classifier = Classifier(
        bundle,
        device=settings.device,
        threads=planned.threads,
        spin=False,
        precision=settings.precision,
    )
    with contextlib.ExitStack() as opened:  # which ends the processes if anything fails
        workers = None
        if planned.processes:
            file = bundle.manifest.files[chosen.image]
            model = Model(
                graph=str(bundle.path / chosen.image),
                sha256=file.sha256,
                embed_dim=bundle.manifest.embed_dim,
                device=settings.device,
                sizes=planned,
                probe=classifier.self_test.image,
                trial_seconds=TRIAL_SECONDS,
                preprocess=bundle.manifest.preprocess,
                limits=settings.limits,
            )
            # each is tested as the encoder of one process would be
            workers = Workers(model, metrics, lambda row: SelfTest(bundle, classifier.choice, lambda _: row).run())
            opened.callback(workers.close)
            starting = in_background(workers.start)  # before anything else takes the cores
        other = in_background(meanwhile)
        if workers is None:
            classifier.start(names=True, self_test=True)
            if planned.max_batch > 1:  # a graph may fail, or never end, in batches alone
                classifier.encode([classifier.self_test.pixels] * planned.max_batch, TRIAL_SECONDS)
        else:
            classifier.start_names(self_test=True)
            classifier.close_images()
            starting.result()
        other.result()
        give_back_memory()
        engine = Engine(classifier, planned, settings.limits, metrics, workers)
        opened.pop_all()
        return engine
