"""Worker processes with flaws, which a ``sitecustomize`` plants; here those of a bulk run."""

from __future__ import annotations

import ctypes
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from sar_infer.bundle.manifest import Preprocess

if TYPE_CHECKING:
    import pytest

WORKER = "sar_infer.bulk.worker"
ROOTS = (Path(__file__).parents[2], Path(__file__).parents[1])
"""Where ``sar_infer`` and ``support`` are found."""
HANGS = b"a decoder never returns from this"
KILLS = b"a decoder crashes at this"


def hang(worker: ModuleType) -> None:
    """Give ``sar_infer.bulk.worker`` that decoder; each process adds a character to the file $STARTS."""
    if "STARTS" in os.environ:
        with Path(os.environ["STARTS"]).open("a") as file:
            file.write("x")
    real = worker.decode_image

    def decode(content: str | bytes, spec: Preprocess, **more: bool) -> np.ndarray:
        if content == HANGS:
            ctypes.PyDLL(None).pause()  # in C, without letting go of Python's lock
        if content == KILLS:
            os._exit(9)
        return real(content, spec, **more)

    worker.decode_image = decode


def die(worker: ModuleType) -> None:
    """Have the process die before it is ready."""
    os._exit(7)


def fail(worker: ModuleType) -> None:
    """Have the process fail at every batch."""

    def failing(*task: object) -> None:
        raise RuntimeError("no rows today")

    worker.begin = lambda options, form: failing


def starve(worker: ModuleType) -> None:
    """Leave the decoder 32 MiB more memory than the process holds."""
    import resource

    real = worker.decode_image

    def decode(content: str | bytes, spec: Preprocess, **more: bool) -> np.ndarray:
        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (held + 2**25, resource.RLIM_INFINITY))
        try:
            return real(content, spec, **more)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    worker.decode_image = decode


def trap(module: ModuleType) -> None:
    """Have ``sar_infer.bulk.locations`` trip over files called ``crash-N…`` and ``hang-N…`` at byte N."""
    real = module.open_binary

    class Trap(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            start = self.tell()
            content = super().read(size)
            kind, at = re.match(r"(crash|hang)-(\d+)", Path(str(self.name)).name).groups()
            if start <= int(at) < start + len(content):
                os.abort() if kind == "crash" else ctypes.PyDLL(None).pause()
            return content

    module.open_binary = lambda path: Trap(path) if Path(path).name.startswith(("crash-", "hang-")) else real(path)


def plant(folder: Path, patch: pytest.MonkeyPatch, hook: Callable[[ModuleType], None], module: str = WORKER) -> None:
    """Have ``hook`` called with a module in every process that starts from now on and imports it.

    Args:
        folder: For a ``sitecustomize``.
        patch: Takes it back.
        hook: A function of a module of ``support``.
        module: Its name.
    """
    folder.mkdir()
    patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *map(str, ROOTS)]))
    (folder / "sitecustomize.py").write_text(f"""
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
            from {hook.__module__} import {hook.__name__}
            {hook.__name__}(module)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hook())
""")
