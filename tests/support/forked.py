"""Workers that one warm process forks, in place of a new interpreter for each that imports everything anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from multiprocessing import get_context

import pytest

from sar_infer.processes import worker


@pytest.fixture(autouse=True, scope="module")
def forked_workers() -> Iterator[None]:
    """Serve the tests of a file that imports it; those that plant a flaw have new interpreters (`hanging.plant`)."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            context = get_context("forkserver")
            context.set_forkserver_preload(["pytest", "sar_infer.bulk.worker", "onnxruntime"])
            patch.setattr(worker, "_SPAWN", context)
        yield
