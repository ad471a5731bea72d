"""The main object of the package: a bundle with its encoders, ready to classify."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from sar_infer._arrays import Floats
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

_FIRST_NAME = "café"
"""Not ASCII, so that the modules that repair names are imported too."""


class Classifier:
    """Classifies images against a bank of class names and any further names; safe to share between threads.

    Sessions open when they are first needed and stay open. Names that the bank has are never encoded again, others
    once, as long as ``cache`` remembers them. If the bundle has a class head, it takes part when the classes are
    exactly its own, with the bundle's rows; for any other classes the text branch answers alone.

    Ranking multiplies with numpy, whose idle BLAS threads spin beside onnxruntime's: set ``OPENBLAS_NUM_THREADS=1``
    before numpy is imported, as the commands do.

    Args:
        bundle: An open bundle.
        bank: Class names to choose from; None takes the bundle's.
        device: ``auto``, ``cpu`` or ``cuda``; ``cuda`` is verified when a session opens.
        threads: Number of threads inside an operator; None leaves it to onnxruntime.
        spin: See ``sessions.open_session``.
        cache: Keeps embeddings of further names; by default there is one for the whole process.
        precision: ``fp32``, or smaller graphs that the bundle has: ``fp16``, ``int8``, or ``auto`` for those that suit
            the device.

    Attributes:
        choice: The graphs that run.
        self_test: Checks that the image encoder computes what it did at export.

    Raises:
        BankError: the bank belongs to another encoder or has rows of another length.
        InputError: the bundle has nothing in this precision, or there is no such device.
        DeviceError: ``cuda`` is not available to ``auto`` precision, which opens a session at once if there is a GPU.
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
            self._use(choose(manifest, precision, "cpu"), "cpu", threads, spin)  # the GPU cannot be used after all

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        device: Device = "auto",
        bank: str | os.PathLike[str] | ClassBank | None = None,
        threads: int | None = None,
        precision: PrecisionChoice = "fp32",
    ) -> Classifier:
        """Open a bundle folder, by default the one that ships with the package, and another bank file if one is given.

        Raises:
            BundleError: the bundle is missing, damaged or inconsistent; SchemaError if it needs a newer reader.
            BankError: the bank is damaged or of another encoder.
            DeviceError: ``device`` is ``cuda``, which is not available.
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
        """Classify images; one that cannot be read gets a result with ``error`` set and does not stop the others.

        Args:
            images: One image or several: paths, encoded bytes, PIL images, uint8 arrays (H, W, 3).
            classes: Names to add to the bank's, or phrases by name, averaged on the sphere. A name that the bank has
                keeps the bank's embedding, unless it comes with phrases of its own.
            only: Choose from ``classes`` alone.
            top_k: Number of classes to return for each image, at most.
            unknown: Tell if the best class is not to be believed, by its ``score`` or by the ``energy``.
            explain: Give the reasons for the best class.
            coverage: Give the set of classes that holds the true one with this probability.

        Returns:
            One result an image, in order; a list for a single image too.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: there is no class to choose from, ``top_k`` is below 1, or the bundle was not calibrated for
                these options.
        """
        options = DecisionOptions(unknown, coverage=coverage, explain=explain)
        return list(self.stream(several(images), self.class_set(classes, only), top_k, options=options))

    def class_set(self, classes: Classes | None = None, only: bool = False, bank: ClassBank | None = None) -> ClassSet:
        """Return the classes to choose from, as in ``classify``, for any number of calls of ``stream`` or ``rank``.

        This decides if the bundle's head takes part. ``bank`` replaces the classifier's, for a bank that changes while
        sessions stay open; it must belong to the same encoder.

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
        options: DecisionOptions = PLAIN,
        names: Iterable[str] | None = None,
    ) -> Iterator[ImageResult]:
        """Classify any number of images in constant memory, decoding the next batch while one is encoded.

        Args:
            images: Images, as in ``classify``.
            classes: From ``class_set``.
            top_k: Number of classes to return for each image, at most.
            batch_size: Number of images that run through the encoder together.
            profile: Counts the time of the phases ``decode``, ``encode`` and ``score``.
            options: What to tell beside the classes.
            names: The names of the results, one an image; by default the path, or ``image[i]`` for anything else.

        Returns:
            One result an image, in order.

        Raises:
            InputError: ``top_k`` or ``batch_size`` is below 1, or this bundle or these classes do not have what
                ``options`` ask for; raised at once, before the first image.
        """
        if min(top_k, batch_size) < 1:
            raise InputError(f"expected top_k and batch_size of 1 or more, got {top_k} and {batch_size}")
        return self._stream(images, self.decide(classes, top_k, options), batch_size, profile or Profile(), names)

    def decide(self, classes: ClassSet, top_k: int = 5, options: DecisionOptions = PLAIN) -> Decision:
        """Return the function that makes a result of each unit row (N, D), for any number of calls.

        Raises:
            InputError: ``top_k`` is below 1, or this bundle or these classes do not have what ``options`` ask for.
        """
        return Decision(self.bundle.manifest, classes, top_k, options)

    def rank(self, rows: Floats, classes: ClassSet, top_k: int) -> Iterator[tuple[Prediction, ...]]:
        """Return the best ``top_k`` classes for each of N unit rows (N, D), the best first."""
        return (result.predictions for result in self.decide(classes, top_k)(rows))

    def logits(self, rows: Floats, classes: ClassSet) -> Floats:
        """Return logits (N, C), columns in the order of the classes, for N unit rows (N, D); ``scores`` takes them."""
        return ranking.logits(rows, classes, scale(self.bundle.manifest, classes))

    def scores(self, logits: Floats, classes: ClassSet) -> Floats:
        """Return the scores (N, C) of ``logits``: their softmax over the bundle's temperature."""
        return ranking.scores(logits, scale(self.bundle.manifest, classes))

    def start(self, names: bool = False, self_test: bool = False) -> str:
        """Open the image session now rather than at the first image, and return the execution provider in use.

        Args:
            names: Open the name session and the tokenizer too, so that no file is needed any more.
            self_test: Run the self-test whatever graph is used, and encode a name if ``names`` is set; otherwise only
                a smaller graph is tested.

        Raises:
            DeviceError: the device is not available.
            BundleError: onnxruntime does not accept a graph, or the graph does not compute what it did at export, or
                takes more than ``TRIAL_SECONDS`` to open or to run once.
        """
        if names:
            self._names.open()
            tokens = encode_name(self.bundle.tokenizer, self.bundle.manifest.tokenizer, _FIRST_NAME)
            if self_test:
                self._names.encode([tokens], TRIAL_SECONDS)
        provider = self._images.open()
        if self_test or self.self_test.due:
            self.self_test.run()
        return provider

    def stop(self) -> None:
        """End all calls of the encoders, present and future, with an error."""
        self._images.stop()
        self._names.stop()

    def check_name(self, name: str) -> None:
        """Raise ClassNameError if the name encoder cannot take a name or phrase."""
        encode_name(self.bundle.tokenizer, self.bundle.manifest.tokenizer, name)

    def embed_images(self, images: ImageSource | Iterable[ImageSource], batch_size: int = 16) -> Floats:
        """Return unit rows (N, D), one an image.

        Raises:
            ImageError: an image cannot be read; the message names it.
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
            pixels: The output (3, size, size) of ``preprocess.to_input`` for each image.
            seconds: Time after which the encoder is stopped for good; None waits as long as it takes.

        Raises:
            BundleError: the self-test of a smaller graph, made before its first image, finds that it does not compute
                what it did at export; or the graph fails or takes too long.
        """
        if self.self_test.due:
            self.self_test.run()
        if len(pixels) == 1:
            return self._images.encode(pixels[0][np.newaxis], seconds)  # without a copy
        batch = np.stack(pixels) if len(pixels) else np.empty((0, 3, 0, 0), dtype=np.float32)
        return self._images.encode(batch, seconds)

    def embed_names(self, names: Sequence[str]) -> Floats:
        """Return unit rows (N, D), one a name, from the name encoder or the cache, never from the bank.

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
        """Return unit rows (N, D), one a class: the phrases of each, embedded and averaged on the sphere.

        Raises:
            ClassNameError: a phrase is empty or too long.
        """
        rows = iter(self.embed_names([phrase for group in groups for phrase in group]))
        means = [np.mean([next(rows) for _ in group], axis=0) for group in groups]
        return scoring.unit_rows(np.array(means, dtype=np.float32).reshape(-1, self.bundle.manifest.embed_dim))

    def _stream(
        self,
        images: Iterable[ImageSource],
        decide: Decision,
        batch_size: int,
        profile: Profile,
        names: Iterable[str] | None,
    ) -> Iterator[ImageResult]:
        given = None if names is None else iter(names)
        for batch in decode_batches(images, self.bundle.manifest.preprocess, batch_size, profile):
            named = batch if given is None else [(next(given), item) for _, item in batch]
            with profile.phase("encode"):
                rows = self.encode(readable(batch))
            with profile.phase("score"):
                found = decide(rows, [name for name, item in named if not isinstance(item, ImageError)])
                results = [
                    ImageResult(name, error=str(item), branch=decide.branch)
                    if isinstance(item, ImageError)
                    else next(found)
                    for name, item in named
                ]
            yield from results

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
