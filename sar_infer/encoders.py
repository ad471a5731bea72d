"""The two halves of a dual encoder as plain functions on arrays; each opens its session when it is first needed."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.errors import BundleError
from sar_infer.scoring import finite
from sar_infer.sessions import Device, open_session, provider

_NAMES_AT_ONCE = 256


class Encoder:
    """A graph with one input and one output; safe to share between threads.

    Args:
        path: ONNX file.
        embed_dim: D, the width of its output.
        device: See ``sessions.open_session``.
        threads: See ``sessions.open_session``.
        spin: See ``sessions.open_session``.
    """

    def __init__(
        self, path: Path, embed_dim: int, device: Device = "auto", threads: int | None = None, spin: bool = True
    ) -> None:
        self._path = path
        self._embed_dim = embed_dim
        self._device = device
        self._threads = threads
        self._spin = spin
        self._lock = threading.Lock()
        self._session: Any = None

    def open(self) -> str:
        """Open the session, unless it is, and return the execution provider in use.

        Raises:
            DeviceError: the device cannot be had.
            BundleError: the graph is not accepted.
        """
        with self._lock:
            if self._session is None:
                self._session = open_session(self._path, self._device, self._threads, self._spin)
        return provider(self._session)

    def _run(self, name: str, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        self.open()
        result: npt.NDArray[np.float32] = self._session.run(None, {name: batch})[0]
        wanted = (len(batch), self._embed_dim)
        if result.shape != wanted:
            raise BundleError(f"{self._path}: expected rows {wanted}, the graph gave {result.shape}")
        return result

    def _empty(self, rows: int) -> npt.NDArray[np.float32]:
        return np.empty((rows, self._embed_dim), dtype=np.float32)


class ImageEncoder(Encoder):
    """Pictures to embeddings."""

    def encode(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Unit rows (N, D) for preprocessed pictures (N, 3, H, W)."""
        return self._run("pixels", pixels) if len(pixels) else self._empty(0)


class NameEncoder(Encoder):
    """Class names to embeddings, the learned prompt included.

    Args:
        path: ONNX file.
        embed_dim: D, the width of its output.
        end_token: Token that ends each row.
        device: See ``sessions.open_session``.
        threads: See ``sessions.open_session``.
        spin: See ``sessions.open_session``.
    """

    def __init__(
        self,
        path: Path,
        embed_dim: int,
        end_token: int,
        device: Device = "auto",
        threads: int | None = None,
        spin: bool = True,
    ) -> None:
        super().__init__(path, embed_dim, device, threads, spin)
        self._end_token = end_token

    def encode(self, names: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Unit rows (N, D) for N names, each the tokens of ``name + suffix`` without the end token.

        Names of equal length run together, so that none pays for the longest.
        """
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for row, tokens in enumerate(names):
            groups[len(tokens)].append(row)
        result = self._empty(len(names))
        for rows in groups.values():
            for start in range(0, len(rows), _NAMES_AT_ONCE):
                chunk = rows[start : start + _NAMES_AT_ONCE]
                batch = np.array([[*names[row], self._end_token] for row in chunk], dtype=np.int64)
                result[chunk] = self._run("tokens", batch)
        return finite(result, str(self._path))
