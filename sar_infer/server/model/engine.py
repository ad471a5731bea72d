"""One open bundle, ready to answer: its classifier, its class sets, the line of images and what computes them."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sar_infer.bundle.bundle import default_bundle, is_shipped, on_hub, open_bundle
from sar_infer.classifier import Classifier
from sar_infer.classify.class_set import ClassSet
from sar_infer.encoders.precision import choose
from sar_infer.encoders.sessions import give_back_memory
from sar_infer.encoders.waiting import in_background
from sar_infer.errors import InputError
from sar_infer.server.metrics import Metrics
from sar_infer.server.model.banks import Banks, OpenBank
from sar_infer.server.model.line import PHASES, Line, Outcome
from sar_infer.server.model.names import Names
from sar_infer.server.model.sizing import sizes
from sar_infer.server.model.workers import Processes, Threads, Workers
from sar_infer.server.problems import IMAGE_CODES, Problem
from sar_infer.server.settings import Settings
from sar_infer.text.names import Phrases

_DECISIONS = 4
"""Decisions that are kept: images of requests that share one are ranked together (1 of 5 changes, ADR 10)."""
T = TypeVar("T")


class Engine:
    """Answers for one bundle, from one event loop; made in a thread, it checks what the bundle computes, and warms it.

    Args:
        settings: Name the bundle, the device and the precision.
        metrics: Times the phases.
        meanwhile: Called in a thread while the processes start.

    Attributes:
        banks: The banks that it answers for.
        names: Makes the class sets that images are ranked against.
        line: The line of images.
        decide: As of the classifier; calls that ask for the same get the same object.

    Raises:
        BundleError: missing, damaged, or it computes something else than at export.
        DeviceError: the device is not available.
        InputError: the bundle has no graphs in the precision of the settings, or its encoder's images have more
            pixels than the settings allow.
        SarInferError: the bank cannot be used, see ``Banks``.
    """

    def __init__(self, settings: Settings, metrics: Metrics, meanwhile: Callable[[], object] = lambda: None) -> None:
        location = settings.bundle or default_bundle()
        elsewhere = is_shipped(location) or on_hub(location)
        self.bundle = open_bundle(location if elsewhere else Path(location).resolve())
        manifest, limits = self.bundle.manifest, settings.limits
        if (least := manifest.preprocess.size**2) > limits.pixels:
            raise InputError(
                f"max-megapixels {limits.pixels / 1e6:g}: the encoder's own images have {least / 1e6:.6g} megapixels; "
                "expected no less"
            )
        graph = choose(manifest, settings.precision, settings.device).image
        self.sizes = sizes(settings, manifest.files[graph].size)
        self.classifier = classifier = Classifier(
            self.bundle, device=settings.device, threads=self.sizes.threads, spin=False, precision=settings.precision
        )
        with contextlib.ExitStack() as opened:  # which ends the processes if anything fails
            if self.sizes.processes:
                self.workers: Workers = Processes(classifier, settings, self.sizes, metrics)
            else:
                self.workers = Threads(classifier, limits, self.sizes)
            opened.callback(self.workers.close)
            starting = in_background(self.workers.start)  # before anything else takes the cores
            other = in_background(meanwhile)
            classifier.start_names(self_test=True)
            if self.sizes.processes:
                classifier.close_images()
            starting.result()
            other.result()
            self.banks = Banks(settings, classifier, metrics)
            give_back_memory()  # 33 % of the memory at rest with sar-mini, 11 % with ViT-B/32 (ADR 10)
            opened.pop_all()
        self.provider = self.workers.provider
        self.names = Names(classifier, limits.classes, metrics)
        self.decide = functools.lru_cache(_DECISIONS)(classifier.decide)
        self.line = Line(self.workers, self.sizes, limits.image_seconds, metrics)

    def close(self) -> None:
        """Stop the threads and processes, and what a graph may still run; all requests must have ended."""
        self.classifier.stop()
        self.names.close()
        self.workers.close()

    async def class_set(self, bank: OpenBank, classes: Phrases, only: bool | None) -> tuple[ClassSet, str]:
        """Return the classes of a call, and the digest of the bank's content.

        Args:
            bank: Of ``Banks.open``.
            classes: Phrases by name, of the call.
            only: Choose only from these.

        Raises:
            Problem: see ``Banks.open`` and ``Names.class_set``.
        """
        if not classes and not only and bank.classes is not None:
            return bank.classes, bank.digest
        whole = bank.whole or await self.banks.whole(bank.name)
        return await self.names.class_set(classes, only, whole, keep=bank.name is None), whole.state_digest

    async def self_test(self) -> float:
        """Run the self-test image through the encoder, ahead of the queue, and return ``SelfTest.cosine``."""
        test = self.classifier.self_test
        (outcome,) = await self.line.each([test.image], lambda rows: rows, first=True)
        if outcome.value is None:
            raise outcome.error or ArithmeticError("no row")
        return test.cosine(outcome.value)


def values_of(outcomes: Sequence[Outcome[T]], labels: Sequence[str]) -> list[T]:
    """Return the values of images, each with a label for the client.

    Raises:
        Problem: an image is bad; the first is named.
    """
    for outcome, label in zip(outcomes, labels, strict=True):
        if outcome.error is not None:
            raise Problem(IMAGE_CODES[outcome.error.kind], f"{label}: {outcome.error}")
    return [outcome.value for outcome in outcomes]  # type: ignore[misc]


def milliseconds(outcomes: Sequence[Outcome[T]]) -> dict[str, float]:
    """Return the milliseconds of each phase, the longest of all images: they run side by side."""
    seconds = [outcome.seconds for outcome in outcomes]
    return {p: round(1000 * max([each.get(p, 0.0) for each in seconds], default=math.nan), 3) for p in PHASES}
