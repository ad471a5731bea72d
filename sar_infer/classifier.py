"""The object that users hold: a bundle with its encoders, ready to classify."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from sar_infer.artefact.bundle import Bundle, open_bundle
from sar_infer.artefact.manifest import Manifest
from sar_infer.bank import ClassBank
from sar_infer.classify import ranking
from sar_infer.classify.class_set import ClassSet, build_class_set, with_calibration, with_head
from sar_infer.classify.decision import Decision, calibration_holds, scale
from sar_infer.encoders import scoring
from sar_infer.encoders.cache import EmbeddingCache, shared_cache
from sar_infer.encoders.encoders import ImageEncoder, NameEncoder
from sar_infer.encoders.precision import Choice, PrecisionChoice, choose
from sar_infer.encoders.self_test import SelfTest
from sar_infer.encoders.sessions import CUDA, Device, expects_cuda
from sar_infer.encoders.waiting import TRIAL_SECONDS
from sar_infer.errors import BankError, ImageError, InputError
from sar_infer.images.load import ImageSource
from sar_infer.images.prefetch import decode_batches, readable, several
from sar_infer.results import PLAIN, DecisionOptions, ImageResult, Prediction, Profile, Unknown
from sar_infer.text.names import Classes, phrases_by_name
from sar_infer.text.tokenizer import encode_name

Floats = npt.NDArray[np.float32]
_FIRST_NAME = "café"
"""Beyond ASCII, so that what repairs names is imported too."""


class Classifier:
    """Classifies pictures against a bank of class names and any further names; safe to share between threads.

    Sessions open when they are first needed and stay open. Names that the bank has are never encoded again, others
    once, as long as ``cache`` remembers them. Where the bundle has a class head, it takes part when the classes are
    exactly its own, with the bundle's rows; for any other classes the text branch answers alone.

    Ranking multiplies with numpy, whose idle BLAS threads wait busily beside onnxruntime's: set
    ``OPENBLAS_NUM_THREADS=1`` before numpy is imported, as the commands do.

    Args:
        bundle: An open bundle.
        bank: Class names to choose from; None takes the bundle's.
        device: ``auto``, ``cpu`` or ``cuda``; ``cuda`` is verified when a session opens.
        threads: Threads inside an operator; None leaves it to onnxruntime.
        spin: See ``sessions.open_session``.
        cache: Where embeddings of further names are kept; by default one for the whole process.
        precision: ``fp32``, or smaller graphs that the bundle has: ``fp16``, ``int8``, or ``auto`` for what suits the
            device.

    Attributes:
        choice: The graphs that run.
        self_test: Whether the image encoder computes what it did at export.

    Raises:
        BankError: the bank belongs to another encoder or has rows of another length.
        InputError: the bundle has nothing in this precision, or there is no such device.
        DeviceError: ``auto`` precision, which opens a session at once where there is a GPU, cannot have ``cuda``.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        bank: ClassBank | None = None,
        device: Device = "auto",
        threads: int | None = None,
        spin: bool = True,
        cache: EmbeddingCache = shared_cache,
        precision: PrecisionChoice = "fp32",
    ) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self.bank = bundle.bank if bank is None else bank
        _check_bank(self.bank, manifest)
        if device not in get_args(Device):
            raise InputError(f"device: expected {', '.join(get_args(Device))}, got {device!r}")
        self._cache = cache
        self._use(choose(manifest, precision, device), device, threads, spin)
        if precision == "auto" and manifest.precisions and expects_cuda(device) and self._images.open() != CUDA:
            self._use(choose(manifest, precision, "cpu"), "cpu", threads, spin)  # there is no usable GPU after all

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        device: Device = "auto",
        bank: str | os.PathLike[str] | ClassBank | None = None,
        threads: int | None = None,
        precision: PrecisionChoice = "fp32",
    ) -> Classifier:
        """Open a bundle folder, by default the one that ships with the package, and perhaps another bank file.

        Raises:
            BundleError: the bundle is missing, damaged or inconsistent; SchemaError where it needs a newer reader.
            BankError: the bank is damaged or of another encoder.
            DeviceError: ``device`` is ``cuda`` and cannot be had.
            InputError: the bundle has nothing in this precision, or there is no such device.
        """
        bundle = open_bundle(None if path is None else Path(path))
        if isinstance(bank, str | os.PathLike):
            bank = ClassBank.load(Path(bank), bundle.manifest.encoder_digest)
        classifier = cls(bundle, bank=bank, device=device, threads=threads, precision=precision)
        if device == "cuda":
            classifier.start()
        return classifier

    def classify(
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Classes | None = None,
        only: bool = False,
        top_k: int = 5,
        *,
        unknown: Unknown | None = None,
        explain: bool = False,
        coverage: float | None = None,
    ) -> list[ImageResult]:
        """Classify pictures; one that cannot be read gets a result with ``error`` set and does not stop the others.

        Args:
            images: One picture or several: paths, encoded bytes, PIL images, uint8 arrays (H, W, 3).
            classes: Names to add to the bank's, or phrases by name, averaged on the sphere. A name that the bank has
                keeps the bank's embedding, unless it comes with phrases of its own.
            only: Choose from ``classes`` alone.
            top_k: How many classes to return for each picture, at most.
            unknown: Say whether the best class is to be believed, by its ``score`` or by the ``energy``.
            explain: Give the reasons for the best class.
            coverage: Give the set of classes that holds the true one with this probability.

        Returns:
            One result a picture, in order; also for a single picture.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: there is no class to choose from, ``top_k`` is below 1, or the bundle was not calibrated for
                what is asked.
        """
        judging = DecisionOptions(unknown, coverage=coverage, explain=explain)
        return list(self.stream(several(images), self.class_set(classes, only), top_k, judging=judging))

    def class_set(self, classes: Classes | None = None, only: bool = False, bank: ClassBank | None = None) -> ClassSet:
        """The classes to choose from, as in ``classify``; make it once for many calls of ``stream`` or ``rank``.

        Whether the bundle's head takes part is decided here. ``bank`` takes the place of the classifier's, for a bank
        that changes while sessions stay open; it must belong to the same encoder.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: no class is left.
        """
        bank = self.bank if bank is None else bank
        chosen = build_class_set(bank, phrases_by_name(classes), only, self.embed_phrases)
        chosen = with_head(chosen, self.bundle.head, self.bundle.bank)
        if not calibration_holds(self.bundle.manifest, chosen):
            return chosen
        return with_calibration(chosen, self.bundle.manifest.calibrated, self.bundle.bank)

    def stream(
        self,
        images: Iterable[ImageSource],
        classes: ClassSet,
        top_k: int = 5,
        batch_size: int = 16,
        profile: Profile | None = None,
        judging: DecisionOptions = PLAIN,
    ) -> Iterator[ImageResult]:
        """Classify any number of pictures in constant memory, decoding the next batch while one is encoded.

        Args:
            images: Pictures, as in ``classify``.
            classes: From ``class_set``.
            top_k: How many classes to return for each picture, at most.
            batch_size: Pictures that run through the encoder together.
            profile: Where to count the time of the phases ``decode``, ``encode`` and ``score``.
            judging: What to tell beside the classes.

        Yields:
            One result a picture, in order.

        Raises:
            InputError: ``top_k`` or ``batch_size`` is below 1, or ``judging`` asks for what cannot be had.
        """
        if min(top_k, batch_size) < 1:
            raise InputError(f"expected top_k and batch_size of 1 or more, got {top_k} and {batch_size}")
        profile = profile or Profile()
        judge = self.judge(classes, top_k, judging)
        for batch in decode_batches(images, self.bundle.manifest.preprocess, batch_size, profile):
            with profile.phase("encode"):
                rows = self.encode(readable(batch))
            with profile.phase("score"):
                judged = judge(rows)
                results = [
                    ImageResult(name, error=str(item), branch=classes.branch)
                    if isinstance(item, ImageError)
                    else dataclasses.replace(next(judged), image=name)
                    for name, item in batch
                ]
            yield from results

    def judge(self, classes: ClassSet, top_k: int = 5, judging: DecisionOptions = PLAIN) -> Decision:
        """What makes a result of each unit row (N, D), for many calls.

        Raises:
            InputError: ``top_k`` is below 1, or the bundle and these classes do not have what ``judging`` asks for.
        """
        return Decision(self.bundle.manifest, classes, top_k, judging)

    def rank(self, rows: Floats, classes: ClassSet, top_k: int) -> Iterator[tuple[Prediction, ...]]:
        """The best ``top_k`` classes for each of N unit rows (N, D), the best first."""
        return (result.predictions for result in self.judge(classes, top_k)(rows))

    def logits(self, rows: Floats, classes: ClassSet) -> Floats:
        """Logits (N, C), columns in the order of the classes, for N unit rows (N, D); ``scores`` takes them."""
        return ranking.logits(rows, classes, scale(self.bundle.manifest, classes))

    def scores(self, logits: Floats, classes: ClassSet) -> Floats:
        """Scores (N, C) of ``logits``: the softmax over the bundle's temperature."""
        return ranking.scores(logits, scale(self.bundle.manifest, classes))

    def start(self, names: bool = False, probe: bool = False) -> str:
        """Open the image session now rather than at the first picture; returns the execution provider in use.

        Args:
            names: Open the name session and the tokenizer too, so that no file is needed any more.
            probe: Run the self-test of any graph, and a name where ``names`` is set; otherwise only the self-test of a
                smaller graph.

        Raises:
            DeviceError: the device cannot be had.
            BundleError: onnxruntime does not accept a graph, it computes otherwise than at export, or it takes more
                than ``TRIAL_SECONDS`` to open or to run once.
        """
        if names:
            self._names.open()
            tokens = encode_name(self.bundle.tokenizer, self.bundle.manifest.tokenizer, _FIRST_NAME)
            if probe:
                self._names.encode([tokens], TRIAL_SECONDS)
        provider = self._images.open()
        if probe or self.self_test.due:
            self.self_test.run()
        return provider

    def stop(self) -> None:
        """End what the encoders run now, and everything that follows, with an error."""
        self._images.stop()
        self._names.stop()

    def check_name(self, name: str) -> None:
        """Raise ClassNameError where the name encoder cannot take a name or phrase."""
        encode_name(self.bundle.tokenizer, self.bundle.manifest.tokenizer, name)

    def embed_images(self, images: ImageSource | Iterable[ImageSource], batch_size: int = 16) -> Floats:
        """Unit rows (N, D), one a picture.

        Raises:
            ImageError: a picture cannot be read; names it.
            InputError: ``batch_size`` is below 1.
            BundleError: the graph is broken.
        """
        if batch_size < 1:
            raise InputError(f"expected batch_size of 1 or more, got {batch_size}")
        rows = [np.empty((0, self.bundle.manifest.embed_dim), dtype=np.float32)]
        for batch in decode_batches(several(images), self.bundle.manifest.preprocess, batch_size, Profile()):
            for name, item in batch:
                if isinstance(item, ImageError):
                    raise ImageError(f"{name}: {item}")
            rows.append(scoring.finite(self.encode(readable(batch)), self.choice.image))
        return np.concatenate(rows)

    def encode(self, pixels: Sequence[Floats], seconds: float | None = None) -> Floats:
        """Return unit rows (N, D) for N images.

        Args:
            pixels: What ``preprocess.to_input`` has made of each (3, size, size).
            seconds: After which the encoder is stopped for good; None waits as long as it takes.

        Raises:
            BundleError: a smaller graph computes otherwise than at export, found out before its first image; the graph
                fails, or took too long.
        """
        if self.self_test.due:
            self.self_test.run()
        if len(pixels) == 1:
            return self._images.encode(pixels[0][np.newaxis], seconds)  # without a copy
        batch = np.stack(pixels) if len(pixels) else np.empty((0, 3, 0, 0), dtype=np.float32)
        return self._images.encode(batch, seconds)

    def embed_names(self, names: Sequence[str]) -> Floats:
        """Unit rows (N, D), one a name, from the name encoder or the cache, never from the bank.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: ``names`` is a single string.
        """
        if isinstance(names, str):
            raise InputError(f"names: expected a list of names, got the string {names!r}")
        names, manifest = list(names), self.bundle.manifest
        rows = {name: self._cache.get((self.choice.names_by, name)) for name in names}
        missing = [name for name, row in rows.items() if row is None]
        if missing:
            tokens = [encode_name(self.bundle.tokenizer, manifest.tokenizer, name) for name in missing]
            for name, row in zip(missing, self._names.encode(tokens), strict=True):
                rows[name] = row
                self._cache.put((self.choice.names_by, name), row)
        return np.array([rows[name] for name in names], dtype=np.float32).reshape(-1, manifest.embed_dim)

    def embed_phrases(self, groups: Sequence[tuple[str, ...]]) -> Floats:
        """Unit rows (N, D), one a class: the phrases of each, embedded and averaged on the sphere.

        Raises:
            ClassNameError: a phrase is empty or too long.
        """
        rows = iter(self.embed_names([phrase for group in groups for phrase in group]))
        means = [np.mean([next(rows) for _ in group], axis=0) for group in groups]
        return scoring.unit_rows(np.array(means, dtype=np.float32).reshape(-1, self.bundle.manifest.embed_dim))

    def _use(self, choice: Choice, device: Device, threads: int | None, spin: bool) -> None:
        path, manifest = self.bundle.path, self.bundle.manifest
        self.choice = choice
        self._images = ImageEncoder(path / choice.image, manifest.embed_dim, device, threads, spin)
        self._names = NameEncoder(
            path / choice.name, manifest.embed_dim, manifest.tokenizer.end_token, device, threads, spin
        )
        self.self_test = SelfTest(self.bundle, choice, functools.partial(self._images.encode, seconds=TRIAL_SECONDS))


def _check_bank(bank: ClassBank, manifest: Manifest) -> None:
    if bank.encoder_digest != manifest.encoder_digest:
        raise BankError(
            f"bank of another encoder: expected {manifest.encoder_digest}, the bank has {bank.encoder_digest}"
        )
    if bank.embeddings.shape[1] != manifest.embed_dim:
        raise BankError(f"bank with rows of {bank.embeddings.shape[1]}, expected {manifest.embed_dim}")
