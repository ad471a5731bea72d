"""The encoders of one bundle: images and class names to unit rows, in sessions that open when they are first needed."""

from __future__ import annotations

import functools
from collections.abc import Container, Sequence

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import NAME_ENCODER
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.encoders.encoders import ImageEncoder, NameEncoder, batch_of, unit_rows
from sar_infer.encoders.gate import check_bfloat16
from sar_infer.encoders.precision import Choice, PrecisionChoice, choose
from sar_infer.encoders.self_test import SelfTest
from sar_infer.encoders.sessions import CUDA, MAIN_DEVICES, Device, expects_cuda
from sar_infer.encoders.waiting import TRIAL_SECONDS
from sar_infer.errors import InputError
from sar_infer.text.names import Phrases

_FIRST_NAME = "café"
"""Not ASCII, so that the modules that repair names are imported too."""


class Embedder:
    """Turns images and names into unit rows; ``Classifier`` is one that ranks them. Safe to share between threads.

    Args:
        bundle: An open bundle.
        device: ``auto``, ``cpu``, ``cuda``, ``openvino`` or another provider. The last two encode images once the
            self-test has passed, and names are then encoded by onnxruntime on the CPU.
        threads: Number of threads inside an operator; None leaves it to onnxruntime.
        spin: See ``sessions.open_session``.
        cache: Keeps embeddings of names.
        precision: See ``precision.choose``.

    Attributes:
        choice: The image encoder that runs.
        self_test: Checks that the image encoder computes what it did at export.

    Raises:
        InputError: the bundle has nothing in this precision, or does not pass the gate of ``bf16``.
        DeviceError: ``cuda`` is not available to ``auto`` precision.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        threads: int | None,
        *,
        spin: bool,
        cache: EmbeddingCache,
        precision: PrecisionChoice,
    ) -> None:
        self.bundle = bundle
        self._cache = cache
        manifest = bundle.manifest
        self._use(choose(manifest, precision, device), device, threads, spin)
        if precision == "bf16":
            check_bfloat16(bundle, threads)
        if precision == "auto" and manifest.precisions and expects_cuda(device) and self._images.open() != CUDA:
            self._use(choose(manifest, precision, "cpu"), "cpu", threads, spin)  # the GPU cannot be used after all

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
            self.start_names(self_test)
        provider = self._images.open()
        if self_test or self.self_test.due:
            self.self_test.run()
        return provider

    def start_names(self, self_test: bool = False) -> None:
        """Open the name session and the tokenizer now, and encode a name if ``self_test`` is set; as in ``start``.

        Raises:
            DeviceError: the device is not available.
            BundleError: onnxruntime does not accept the graph, or it takes more than ``TRIAL_SECONDS``.
        """
        if self._names is None:
            return
        self._names.open()
        tokens = self.bundle.encode_name(_FIRST_NAME)
        if self_test:
            self._names.encode([tokens], TRIAL_SECONDS)

    def close_images(self) -> None:
        """Free the image session, which ``auto`` precision has opened to look for a GPU; another image opens it."""
        self._images.close()

    def stop(self) -> None:
        """End all calls of the encoders, present and future, with an error."""
        self._images.stop()
        if self._names is not None:
            self._names.stop()

    def check_name(self, name: str) -> None:
        """Raise ClassNameError if the name encoder cannot take a name or phrase."""
        self.bundle.encode_name(name)

    def embed_inputs(self, pixels: Sequence[Floats], seconds: float | None = None) -> Floats:
        """Return unit rows (N, D) for N images.

        Args:
            pixels: The output of ``prefetch.decode_image`` for each image; each crop counts as an image.
            seconds: Time after which the encoder is stopped for good; None waits as long as it takes.

        Raises:
            BundleError: the self-test of a smaller graph, made before its first image, finds that it does not compute
                what it did at export; or the graph fails or takes too long.
        """
        if self.self_test.due:
            self.self_test.run()
        return self._images.encode(batch_of(pixels), seconds)

    def embed_names(self, names: Sequence[str]) -> Floats:
        """Return unit rows (N, D), one a name, from the name encoder or the cache, never from the bank.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: ``names`` is a single string.
        """
        if isinstance(names, str):
            raise InputError(f"names: expected a list of names, got the string {names!r}")
        names, manifest = list(names), self.bundle.manifest
        rows = {name: self._cache.get((manifest.encoder_digest, name)) for name in names}
        missing = [name for name, row in rows.items() if row is None]
        tokens = [self.bundle.encode_name(name) for name in missing]
        if self._names is not None and tokens:
            for name, row in zip(missing, self._names.encode(tokens), strict=True):
                rows[name] = row
                self._cache.put((manifest.encoder_digest, name), row.copy())  # not the whole batch
        return np.array([rows[name] for name in names], dtype=np.float32).reshape(-1, manifest.embed_dim)

    def class_rows(self, phrases: Phrases, photographed: Container[str]) -> Floats:
        """Return unit rows (N, D) of classes to add to a bank; without a text tower all have the same row.

        Args:
            phrases: The texts to embed for each class, by its name.
            photographed: Names of the classes that get photos.

        Raises:
            ClassNameError: a phrase is empty or too long, or a class needs photos and has none.
        """
        if self._names is None and all(name in photographed for name in phrases):
            dim = self.bundle.manifest.embed_dim
            return np.full((len(phrases), dim), dim**-0.5, np.float32)
        return self.embed_phrases([*phrases.values()])

    def embed_phrases(self, groups: Sequence[tuple[str, ...]]) -> Floats:
        """Return unit rows (N, D), one a class: the phrases of each, embedded and averaged on the sphere.

        Raises:
            ClassNameError: a phrase is empty or too long.
        """
        rows = iter(self.embed_names([phrase for group in groups for phrase in group]))
        means = [np.mean([next(rows) for _ in group], axis=0) for group in groups]
        return unit_rows(np.array(means, dtype=np.float32).reshape(-1, self.bundle.manifest.embed_dim))

    def _use(self, choice: Choice, device: Device, threads: int | None, spin: bool) -> None:
        path, manifest = self.bundle.path, self.bundle.manifest
        self.choice = choice
        self._images = ImageEncoder(
            path / choice.image, manifest.embed_dim, device, threads, spin, precision=choice.precision
        )
        self._names = None
        if manifest.tokenizer is not None:
            file, spec = path / NAME_ENCODER, manifest.tokenizer
            of_names = device if device in MAIN_DEVICES else "cpu"  # a bundle has no self-test of names
            self._names = NameEncoder(file, manifest.embed_dim, of_names, threads, spin, spec=spec)
        encode = functools.partial(self._images.encode, seconds=TRIAL_SECONDS)
        self.self_test = SelfTest(self.bundle, choice, device, encode)
