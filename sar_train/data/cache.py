"""Image features on disk, so that no image is encoded twice by the same weights.

There is one folder for each backbone, preprocessing and dataset. Files are only ever added to it; each holds ``keys``
(N, 16) uint8 and ``features`` (N, D) float32. A key covers an image's relative path, size, times of change and view.
Losing the cache costs only time, so a damaged file is ignored and a full disk does not stop a run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sar_train.clip.backbone import Backbone
from sar_train.data.files import write_atomic
from sar_train.data.progress import ProgressCallback
from sar_train.errors import DataError

KEY_BYTES = 16
FLUSH_ROWS = 1024


def set_folder(cache: Path, dataset: str, backbone: Backbone) -> Path:
    """Return the folder of one dataset's features under one backbone."""
    content = [backbone.weights_digest, dataclasses.asdict(backbone.preprocess)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return cache / f"{re.sub(r'[^A-Za-z0-9._-]', '_', dataset)[:60]}-{digest[:16]}"


def row_key(relative: str, stat: os.stat_result, view: int, seed: int) -> bytes:
    """Return the key of one view of one image; the plain view 0 does not depend on the seed.

    Both times count: an archive sets the modification time, perhaps to the same in every release, but never the other.
    """
    times = f"{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
    text = f"{relative}\0{stat.st_size}\0{times}\0{view}\0{seed if view else ''}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:KEY_BYTES]


class FeatureCache:
    """Rows by key, in memory and, with a folder, on disk."""

    def __init__(self, folder: Path | None, size: int, tell: ProgressCallback = lambda text: None) -> None:
        """Read the folder's rows; None keeps everything in memory.

        Args:
            folder: of `set_folder`; need not exist.
            size: D.
            tell: gets warnings.
        """
        self._folder, self._size, self._tell = folder, size, tell
        self._rows: dict[bytes, Tensor] = {}
        self._unsaved: list[bytes] = []
        for path in sorted(folder.glob("*.safetensors")) if folder else ():
            self._read(path)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def __getitem__(self, key: bytes) -> Tensor:
        return self._rows[key]

    def put(self, keys: Sequence[bytes], features: Tensor) -> None:
        """Add (N, D) rows; every thousandth or so goes to disk together with those before it."""
        self._rows.update(zip(keys, features.float().cpu(), strict=True))
        self._unsaved += keys
        if len(self._unsaved) >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not on disk yet; when that fails, say so and go on without."""
        if not self._unsaved or self._folder is None:
            return
        content = {
            "keys": torch.frombuffer(bytearray(b"".join(self._unsaved)), dtype=torch.uint8).reshape(-1, KEY_BYTES),
            "features": torch.stack([self._rows[key] for key in self._unsaved]),
        }
        name = hashlib.sha256(b"".join(self._unsaved)).hexdigest()[:24]
        try:
            write_atomic(self._folder / f"{name}.safetensors", save(content))
        except DataError as error:
            self._tell(f"Warning: feature cache: {error}; going on without it")
            self._folder = None
        self._unsaved.clear()

    def _read(self, path: Path) -> None:
        try:
            content = load_file(path)
            keys, features = content["keys"], content["features"]
            fits = keys.dtype == torch.uint8 and keys.shape == (len(features), KEY_BYTES)
            if not fits or features.shape[1:] != (self._size,) or not bool(features.isfinite().all()):
                raise ValueError("unexpected content")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            self._tell(f"Warning: feature cache: {path} is damaged and ignored ({' '.join(str(error).split())})")
            return
        self._rows.update(zip((bytes(key) for key in keys.numpy()), features, strict=True))
