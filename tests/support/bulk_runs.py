"""``sar-classify … --out`` as a user calls it, with batches that are answered in this process."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sar_infer.cli.classify import main


class Answering:
    """Stands in for ``Worker``: what its process would load is loaded here.

    Args:
        load: Returns what answers a task.
        limit: Is of no account.
    """

    alive = True

    def __init__(self, load: Callable[[], Callable[..., Any]], limit: float) -> None:
        self._load = load

    def loaded(self, limit: float) -> None:
        """Load."""
        self._answer = self._load()

    def answer(self, task: tuple[Any, ...]) -> Any:
        """Return the answer to a task."""
        return self._answer(*task)

    def kill(self) -> None:
        """Do nothing: no process was started."""

    ended = kill


def answer_here(patch: pytest.MonkeyPatch) -> None:
    """Spare runs the second that an interpreter takes to import everything, where no process is what is tested."""
    patch.setattr("sar_infer.bulk.engine.Worker", Answering)


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
