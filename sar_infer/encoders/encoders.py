"""The image encoder and the name encoder; each opens its session when it is first used."""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bundle.manifest import file_entry
from sar_infer.encoders.engines import OPENVINO, Session, open_encoder, run_encoder
from sar_infer.encoders.sessions import Device
from sar_infer.encoders.waiting import within
from sar_infer.errors import BundleError, reason_of
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import token_row

_NAMES_AT_ONCE = 256


@dataclass(eq=False)
class Encoder:
    """A graph with one input and one output; safe to share between threads.

    A graph whose batch is fixed at one, as most published ones are, runs once for each input.

    Args:
        path: ONNX file.
        embed_dim: D, the width of its output.
        device: See ``engines.open_encoder``.
        threads: See ``engines.open_encoder``.
        spin: See ``sessions.open_session``.
        sha256: Digest that the file must have when it is opened; None if it has just been checked.
        precision: See ``openvino.open_session``.
    """

    path: Path
    embed_dim: int
    device: Device
    threads: int | None = None
    spin: bool = True
    sha256: str | None = None
    precision: str = "fp32"
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _session: Session | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)

    def open(self) -> str:
        """Open the session if it is not open yet, and return what computes, such as an execution provider.

        Raises:
            DeviceError: The device is not available.
            BundleError: The graph is not accepted, or another file has taken its place.
        """
        return self._opened().provider

    def close(self) -> None:
        """Free the session; the next run opens it again."""
        with self._lock:
            self._session = None

    def stop(self) -> None:
        """Make the current run and all later ones fail; a damaged graph may otherwise run for ever."""
        self._stopped, session = True, self._session
        if session is not None:
            session.stop()

    def run(self, name: str, batch: npt.NDArray[Any], seconds: float | None = None) -> Floats:
        """Return unit rows (N, D) for a batch of N inputs.

        Args:
            name: Of the graph's input.
            batch: N inputs.
            seconds: Time after which the encoder is stopped for good; None waits as long as it takes.

        Raises:
            BundleError: The graph fails, gives rows of another shape, or takes too long.
        """
        session = self._opened()
        try:
            run = functools.partial(run_encoder, session, name, batch)
            result = run() if seconds is None else within(seconds, run, self.stop)
        except TimeoutError:
            raise BundleError(f"{self.path}: the graph has given no answer within {seconds:g} s") from None
        except Exception as error:  # those of onnxruntime share no base class
            engine = "OpenVINO" if self.device == OPENVINO else "onnxruntime"
            raise BundleError(f"{self.path}: {engine} cannot run this graph: {reason_of(error)}") from None
        expected = (len(batch), self.embed_dim)
        if result.shape != expected:
            raise BundleError(f"{self.path}: expected rows {expected}, the graph gave {result.shape}")
        return result

    def _opened(self) -> Session:
        with self._lock:
            if self._session is None:
                self._check_digest()
                self._session = open_encoder(self.path, self.device, self.threads, self.spin, self.precision)
            if self._stopped:
                self._session.stop()
            return self._session

    def _check_digest(self) -> None:
        """Raise BundleError if a digest is expected and the file has another."""
        if self.sha256 is None:
            return
        try:
            if file_entry(self.path).sha256 == self.sha256:
                return
            reason = "was replaced since the bundle was opened"
        except OSError as error:
            reason = f"cannot be read any more ({error.strerror or error})"
        raise BundleError(f"{self.path}: {reason}; open the bundle again (a server: reload it)")

    def _empty(self, rows: int) -> Floats:
        return np.empty((rows, self.embed_dim), dtype=np.float32)


class ImageEncoder(Encoder):
    """Turns preprocessed images into embeddings."""

    def encode(self, pixels: Floats, seconds: float | None = None) -> Floats:
        """Return unit rows (N, D) for preprocessed images (N, 3, H, W).

        Args:
            pixels: The images.
            seconds: Time after which the encoder is stopped for good; None waits as long as it takes.

        Raises:
            BundleError: The graph fails, gives rows of another shape, or takes too long.
        """
        return self.run("pixels", pixels, seconds) if len(pixels) else self._empty(0)


@dataclass(eq=False)
class NameEncoder(Encoder):
    """Turns class names into embeddings; ``spec`` describes the graph's rows of tokens."""

    spec: TokenizerSpec = field(kw_only=True)

    def encode(self, names: Sequence[Sequence[int]], seconds: float | None = None) -> Floats:
        """Return unit rows (N, D) for N names.

        Only names of equal length run together, so that short ones are not padded to the longest.

        Args:
            names: The tokens of each name, from `encode_name`.
            seconds: Time for each run of the graph, after which the encoder is stopped for good; None waits as long
                as it takes.

        Raises:
            BundleError: The graph fails, gives rows of another shape or that are not finite, or takes too long.
        """
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for row, tokens in enumerate(names):
            groups[len(tokens)].append(row)
        result = self._empty(len(names))
        for rows in groups.values():
            for start in range(0, len(rows), _NAMES_AT_ONCE):
                chunk = rows[start : start + _NAMES_AT_ONCE]
                batch = np.array([token_row(self.spec, names[row]) for row in chunk], dtype=np.int64)
                result[chunk] = self.run("tokens", batch, seconds)
        return finite(result, str(self.path))


def batch_of(images: Sequence[Floats]) -> Floats:
    """Return preprocessed images (3, H, W) or crops (K, 3, H, W) as one array (N, 3, H, W); a single one as it is."""
    if not images:
        return np.empty((0, 3, 0, 0), dtype=np.float32)
    parts = [image if image.ndim == 4 else image[np.newaxis] for image in images]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def unit_rows(rows: Floats) -> Floats:
    """Return rows (N, D) scaled to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    result: Floats = (rows / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return result


def finite(rows: Floats, source: str) -> Floats:
    """Return the rows unchanged.

    Raises:
        BundleError: One is not finite, so the graph that they come from, ``source``, is broken.
    """
    if not np.isfinite(rows).all():
        raise BundleError(f"{source}: gives numbers that are not finite; export the bundle again")
    return rows
