"""The encoders of an open bundle: pictures and class names become unit rows of one space."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt

from sar_infer import scoring
from sar_infer.bundle import Bundle
from sar_infer.cache import EmbeddingCache, shared_cache
from sar_infer.decoding import decode_batches, readable, several
from sar_infer.encoders import ImageEncoder, NameEncoder
from sar_infer.errors import ImageError, InputError
from sar_infer.images import ImageSource
from sar_infer.precision import Asked, Choice, choose
from sar_infer.probe import SelfTest
from sar_infer.profile import Profile
from sar_infer.sessions import CUDA, Device, expects_cuda
from sar_infer.tokenizer import encode_name
from sar_infer.waiting import TRIAL_SECONDS

Floats = npt.NDArray[np.float32]
_FIRST_NAME = "café"
"""Beyond ASCII, so that what repairs names is imported too."""


class Embedder:
    """Embeds pictures and names with a bundle's encoders; safe to share between threads.

    Sessions open when they are first needed and stay open. Names are encoded once, as long as ``cache`` remembers them.

    Args:
        bundle: An open bundle.
        device: ``auto``, ``cpu`` or ``cuda``; ``cuda`` is verified when a session opens.
        threads: Threads inside an operator; None leaves it to onnxruntime.
        spin: See ``sessions.open_session``.
        cache: Where embeddings of names are kept; by default one for the whole process.
        precision: ``fp32``, or smaller graphs that the bundle has: ``fp16``, ``int8``, or ``auto`` for what suits the
            device.

    Attributes:
        choice: The graphs that run.
        self_test: Whether the image encoder computes what it did at export.

    Raises:
        InputError: the bundle has nothing in this precision, or there is no such device.
        DeviceError: ``auto`` precision, which opens a session at once where there is a GPU, cannot have ``cuda``.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        threads: int | None = None,
        spin: bool = True,
        cache: EmbeddingCache = shared_cache,
        precision: Asked = "fp32",
    ) -> None:
        if device not in get_args(Device):
            raise InputError(f"device: expected {', '.join(get_args(Device))}, got {device!r}")
        manifest = bundle.manifest
        self.bundle = bundle
        self._cache = cache
        self._use(choose(manifest, precision, device), device, threads, spin)
        if precision == "auto" and manifest.precisions and expects_cuda(device) and self._images.open() != CUDA:
            self._use(choose(manifest, precision, "cpu"), "cpu", threads, spin)  # there is no usable GPU after all

    def _use(self, choice: Choice, device: Device, threads: int | None, spin: bool) -> None:
        path, manifest = self.bundle.path, self.bundle.manifest
        self.choice = choice
        self._images = ImageEncoder(path / choice.image, manifest.embed_dim, device, threads, spin)
        self._names = NameEncoder(
            path / choice.name, manifest.embed_dim, manifest.tokenizer.end_token, device, threads, spin
        )
        self.self_test = SelfTest(self.bundle, choice, functools.partial(self._images.encode, seconds=TRIAL_SECONDS))

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
