"""One process of the pool: it opens the bundle, answers batches in one thread, and ends with its parent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

from sar_infer.bulk.answers import Answerer, Answers, Recipe
from sar_infer.bulk.items import Item
from sar_infer.bulk.outputs.rows import Form
from sar_infer.errors import SarInferError

_worker: list[Any] = []
"""The answerer and the form, or why there is none."""


def begin(recipe: Recipe, form: Form) -> None:
    """In a new process: open the bundle. The parent decides when it ends, by SIGTERM if need be, and not Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):  # which a parent may ignore; see ``signals.deadline``
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answerer = Answerer(recipe)
        answerer.start()
        _worker.append((answerer, form))
    except SarInferError as error:
        _worker.append(error)


def _end_with_parent() -> None:
    """Killed parents leave their processes waiting for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def ready() -> None:
    """See that the bundle is open.

    Raises:
        SarInferError: why it is not.
    """
    if isinstance(_worker[0], SarInferError):
        raise _worker[0]


def answer(batch: Sequence[Item]) -> Answers:
    """The rows of some inputs.

    Raises:
        SarInferError: there is no bundle, or the encoder fails.
    """
    ready()
    answerer: Answerer = _worker[0][0]
    return answerer.answer(batch, _worker[0][1])
