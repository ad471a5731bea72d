"""Workers of a bulk run whose decoder hangs on some images, as a flaw in one would have it."""

from __future__ import annotations

import ctypes
from types import ModuleType

import numpy as np

from sar_infer.artefact.manifest import Preprocess
from sar_infer.bulk import worker
from sar_infer.bulk.outputs.rows import Form
from sar_infer.bulk.worker import WorkerOptions

HANGS = b"a decoder never returns from this"


def begin(options: WorkerOptions, form: Form) -> None:
    """Start as ``worker.begin``, with that decoder."""
    worker.begin(options, form)
    hang(worker)


def hang(module: ModuleType) -> None:
    """Give ``sar_infer.bulk.worker`` that decoder."""
    real = module.decode_image

    def decode(content: str | bytes, spec: Preprocess) -> np.ndarray:
        if content == HANGS:
            ctypes.PyDLL(None).pause()  # in C, without letting go of Python's lock
        return real(content, spec)

    module.decode_image = decode


SITE = """
import importlib.abc, importlib.util, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "sar_infer.bulk.worker":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        real = spec.loader.exec_module

        def exec_module(module):
            real(module)
            from support.hanging import hang
            hang(module)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hook())
"""
"""A ``sitecustomize`` that does so in every process that imports it."""
