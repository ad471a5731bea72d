"""A machine with CUDA, or with part of it, as onnxruntime shows it."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import onnxruntime
import pytest

CUDA = "CUDAExecutionProvider"


def with_cuda(
    patch: pytest.MonkeyPatch, *, built: bool = True, driver: bool = True, works: bool, prints: str = ""
) -> None:
    """Have onnxruntime and the loader of libraries answer as on such a machine.

    Args:
        patch: Takes it back.
        built: onnxruntime has the provider.
        driver: The driver's library can be loaded.
        works: A session that is asked for CUDA gets it; it cannot run.
        prints: What onnxruntime says when it loads CUDA's libraries.
    """
    real = onnxruntime.InferenceSession

    def load(name: str) -> None:
        if not driver:
            raise OSError(name)

    def session(path: str, options: object, *, providers: list, **settings: object) -> object:
        asked = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        if works and asked[0] == CUDA:
            return SimpleNamespace(get_providers=lambda: asked)
        return real(path, options, providers=["CPUExecutionProvider"], **settings)

    patch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA] * built + ["CPUExecutionProvider"])
    patch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write(prints), raising=False)
    patch.setattr(onnxruntime, "InferenceSession", session)
    patch.setattr(ctypes, "CDLL", load)
