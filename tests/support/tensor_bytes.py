"""The file of a bundle's class statistics, changed under the digest that fits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save

Tensors = dict[str, npt.NDArray[Any]]
_MODEL = ("precision", "centre", "text_centre", "means", "counts", "photo_offsets", "curve")
_DIGESTED = ("names", "offsets", *_MODEL, "slope", "alpha", "prior", "separation")


def read(path: Path) -> tuple[dict[str, str], Tensors]:
    """Metadata and tensors of a sound file."""
    with safe_open(path, "np") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write(path: Path, metadata: dict[str, str], tensors: Tensors) -> None:
    """A file with the content digest that fits."""
    digest = hashlib.sha256()
    for name in _DIGESTED:
        digest.update(np.ascontiguousarray(tensors[name]).data if name in tensors else b"")
    arrays = {name: np.array(tensor, order="C") for name, tensor in tensors.items()}
    path.write_bytes(save(arrays, {**metadata, "content_digest": digest.hexdigest()}))
