"""Workers that one warm process forks, in place of a new interpreter for each that imports everything anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from multiprocessing import get_context

import pytest

from sar_infer.processes import worker


@pytest.fixture(autouse=True, scope="module")
def forked_workers() -> Iterator[None]:
    """Serve the tests of a file that imports it; those that plant a flaw have new interpreters (`hanging.plant`).

    The warm process writes how a worker ended into its sentinel and then closes that: between the two, somebody who has
    read the one finds nothing to read, as while it lived. Its pipe is closed, or its exit code read, by then.
    """
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform == "linux":
            context, alive = get_context("forkserver"), worker.Worker.alive
            context.set_forkserver_preload(["pytest", "sar_infer.bulk.worker", "onnxruntime"])
            patch.setattr(worker, "_SPAWN", context)

            def alive_or_unread(one: worker.Worker[object]) -> bool:
                return not one._pipe.closed and one._process.exitcode is None and alive.fget(one)

            patch.setattr(worker.Worker, "alive", property(alive_or_unread))
        yield
