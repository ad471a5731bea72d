"""Decide if a caller means one image or several; without numpy and Pillow, for the client."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from sar_infer.errors import InputError

EXPECTED = "a path, bytes, an open file, a PIL image or a uint8 array (H, W, 3)"
_TEXT_KINDS = "OSTU"
"""Kinds of numpy's types that contain paths or other objects."""


def is_one(images: Any) -> bool:
    """Return True for one image, or a path, False for several images.

    Arrays are one image unless they contain objects or text, or have one or four dimensions.

    Raises:
        InputError: It is neither.
    """
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(images, "read"):
        return True
    if (dtype := getattr(images, "dtype", None)) is not None:
        return images.ndim in (2, 3) and getattr(dtype, "kind", "") not in _TEXT_KINDS
    if hasattr(images, "convert"):  # a PIL image
        return True
    if not isinstance(images, Iterable):
        raise InputError(f"images: expected {EXPECTED}, or several of these, got {type(images).__name__}")
    return False


def several(images: Any) -> Iterable[Any]:
    """Return images as an iterable; a single image becomes a list of one.

    Raises:
        InputError: They are no images.
    """
    return [images] if is_one(images) else images
