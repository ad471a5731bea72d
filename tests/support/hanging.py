"""Workers of a bulk run whose decoder hangs on some images, as a flaw in one would have it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from sar_infer.artefact.manifest import Preprocess
from sar_infer.bulk import worker
from sar_infer.bulk.items import Item
from sar_infer.bulk.outputs.rows import RowFormat
from sar_infer.bulk.worker import AnsweredRows, WorkerOptions

HANGS = b"a decoder never returns from this"


def begin(options: WorkerOptions, form: RowFormat) -> Callable[[Sequence[Item]], AnsweredRows]:
    """Start as ``worker.begin``, with that decoder; each start adds a character to the file $STARTS."""
    if "STARTS" in os.environ:
        with Path(os.environ["STARTS"]).open("a") as file:
            file.write("x")
    hang(worker)
    return worker.begin(options, form)


def die(options: WorkerOptions, form: RowFormat) -> None:
    """Die instead of starting."""
    os._exit(7)


def fail(options: WorkerOptions, form: RowFormat) -> Callable[[Sequence[Item]], AnsweredRows]:
    """Start, and fail at every batch."""
    return _failing


def _failing(batch: Sequence[Item]) -> AnsweredRows:
    raise RuntimeError("no rows today")


def hang(module: ModuleType) -> None:
    """Give ``sar_infer.bulk.worker`` that decoder."""
    real = module.decode_image

    def decode(content: str | bytes, spec: Preprocess) -> np.ndarray:
        if content == HANGS:
            ctypes.PyDLL(None).pause()  # in C, without letting go of Python's lock
        return real(content, spec)

    module.decode_image = decode


def site(module: str, hook: str) -> str:
    """Return a ``sitecustomize`` that calls ``hook`` with ``module`` in every process that imports that."""
    where, _, function = hook.rpartition(".")
    return f"""
import importlib.abc, importlib.util, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "{module}":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        real = spec.loader.exec_module

        def exec_module(module):
            real(module)
            from {where} import {function}
            {function}(module)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hook())
"""


SITE = site("sar_infer.bulk.worker", "support.hanging.hang")
"""A ``sitecustomize`` that does so in every process that imports it."""
