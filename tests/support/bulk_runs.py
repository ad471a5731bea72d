"""``sar-classify … --out`` as a user calls it, with batches that are answered in this process."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sar_infer.cli.classify import main


class Answering:
    """Stands in for ``WorkerPool``: what its processes would load is loaded here, once.

    Args:
        load: Returns what answers a task.
        workers: Is of no account.
    """

    def __init__(self, load: Callable[[], Callable[..., Any]], workers: int) -> None:
        self._load = load

    def start(self) -> None:
        """Load."""
        self._answer = self._load()

    def submit(self, *task: Any) -> Future[Any]:
        """Return the future of an answer that is there already."""
        future: Future[Any] = Future()
        try:
            future.set_result(self._answer(*task))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self, *, now: bool = False) -> None:
        """Do nothing: no process was started."""


def answer_here(patch: pytest.MonkeyPatch) -> None:
    """Spare runs the second that an interpreter takes to import everything, where no process is what is tested."""
    patch.setattr("sar_infer.bulk.pool.WorkerPool", Answering)


@pytest.fixture
def answered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer the batches of all runs here."""
    answer_here(monkeypatch)


def run(*arguments: str) -> Result:
    """Return how the command ends; an exception that reaches the user as a traceback fails the test."""
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, arguments)
    signal.signal(signal.SIGTERM, before)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    return result


def refused(message: str, *arguments: str) -> None:
    """Check for exit code 2, nothing on stdout, one line on stderr, and nothing written."""
    before = sorted(Path().rglob("*"))
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert re.search(message, line), line
    assert sorted(Path().rglob("*")) == before


def summary(path: str) -> dict[str, Any]:
    """Return the counts of a run that has ended."""
    counts: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))["summary"]
    return counts
