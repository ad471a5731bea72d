"""How much faster a graph is than another, on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sar_infer.encoders.sessions import open_session

ROUNDS = 15


def speedup(reference: Path, path: Path, batch: npt.NDArray[Any]) -> float:
    """Time of one graph over another's, on one thread; medians of runs that alternate.

    The thread's own time is taken, so that other programs disturb little.

    Args:
        reference: the graph to compare with.
        path: the graph in question.
        batch: what both take.
    """
    sessions = [open_session(graph, "cpu", 1) for graph in (reference, path)]
    (source,) = sessions[0].get_inputs()
    taken: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 1):
        for session, seconds in zip(sessions, taken, strict=True):
            start = time.thread_time()
            session.run(None, {source.name: batch})
            seconds.append(time.thread_time() - start)
    slow, fast = (float(np.median(seconds[1:])) for seconds in taken)  # the first runs are warm-up
    return slow / fast
