"""Caches for embeddings: of names that come with a call, and of photos by the bytes of their files."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from sar_infer._arrays import Floats
from sar_infer.errors import InputError, WriteError, raised_as
from sar_infer.storage.files import write_atomically
from sar_infer.storage.tensor_file import TensorFile, file_pieces

Key = tuple[str, str]
"""Digest of the encoder, and the phrase."""
Value = TypeVar("Value")
_AT_ONCE = 256
"""Embeddings of a file of the folder."""


class RecentCache(Generic[Value]):
    """Values by key, the least recently used dropped first; safe to share between threads."""

    def __init__(self, capacity: int = 16_384) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """Return a value, which becomes the most recently used, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Store a value; drop the least recently used if there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._capacity:
                self._values.popitem(last=False)


EmbeddingCache = RecentCache[Floats]
"""Embeddings (D,) by encoder and phrase."""


class PhotoCache(RecentCache[tuple[bytes, Floats]]):
    """Digest of the pixels and embedding (D,) by encoder and SHA-256 of the file; in a folder too, while it is stored.

    The folder gets a safetensors file for every few hundred photos of an encoder: ``files`` and ``digests`` U8 (N, 32),
    ``rows`` F32 (N, D). Processes may share it.
    """

    def __init__(self, capacity: int = 16_384) -> None:
        super().__init__(capacity)
        self._folder: Path | None = None
        self._stored: dict[str, dict[str, tuple[bytes, Floats]]] = {}
        self._new: dict[str, dict[str, tuple[bytes, Floats]]] = {}

    @contextlib.contextmanager
    def stored(self, folder: Path | None) -> Iterator[None]:
        """Read embeddings from a folder, and write new ones to it, whatever ends this; None does nothing.

        Raises:
            InputError: The folder cannot be made, or a file in it is damaged.
            WriteError: A file cannot be written.
        """
        if folder is not None:
            with raised_as(InputError, f"{folder}: not a folder for embeddings", OSError):
                folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        try:
            yield
        finally:
            for encoder in [*self._new]:
                self._write(encoder)
            self._folder = None
            self._stored.clear()

    def get(self, key: Key) -> tuple[bytes, Floats] | None:
        """Return a value from memory or the folder, or None."""
        value = super().get(key)
        if value is not None or self._folder is None:
            return value
        encoder, file = key
        if encoder not in self._stored:
            self._stored[encoder] = dict(self._read(encoder))
        return self._stored[encoder].get(file)

    def put(self, key: Key, value: tuple[bytes, Floats]) -> None:
        """Store a value."""
        super().put(key, value)
        if self._folder is not None:
            new = self._new.setdefault(key[0], {})
            new[key[1]] = value
            if len(new) >= _AT_ONCE:
                self._write(key[0])

    def _read(self, encoder: str) -> Iterator[tuple[str, tuple[bytes, Floats]]]:
        assert self._folder is not None  # noqa: S101 - `get` has looked
        for path in sorted(self._folder.glob(f"{_stem(encoder)}-*.safetensors")):
            task, damage = f"{path}: not embeddings; remove it", (OSError, ValueError, KeyError)
            with raised_as(InputError, task, damage), path.open("rb") as stream:
                file = TensorFile(stream)
                tensors = [file.tensor(name) for name in ("files", "digests", "rows")]
            for name, digest, row in zip(*tensors, strict=True):
                yield name.tobytes().hex(), (digest.tobytes(), row)

    def _write(self, encoder: str) -> None:
        new = self._new.pop(encoder)
        digests, rows = zip(*new.values(), strict=True)
        columns = {"files": map(bytes.fromhex, new), "digests": digests}
        tensors = {name: np.frombuffer(b"".join(of), np.uint8).reshape(-1, 32) for name, of in columns.items()}
        tensors |= {"rows": np.array(rows, np.float32)}
        assert self._folder is not None  # noqa: S101 - `put` has looked
        path = self._folder / f"{_stem(encoder)}-{secrets.token_hex(8)}.safetensors"
        with raised_as(WriteError, f"{path}: cannot be written", OSError):
            write_atomically(path, file_pieces(tensors, {"format": "sar-embeddings"}))


def _stem(encoder: str) -> str:
    return hashlib.sha256(encoder.encode()).hexdigest()[:16]


shared_cache = EmbeddingCache()
photo_cache = PhotoCache()
