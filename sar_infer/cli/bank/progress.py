"""A bar on stderr for work that takes a while, with rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import click

T = TypeVar("T", bound=Sized)


def counted(chunks: Iterable[T], total: int, label: str, hidden_up_to: int) -> Iterator[T]:
    """The chunks, with a bar that counts what they hold, on a terminal, for more than ``hidden_up_to``."""
    started = time.perf_counter()
    hidden = total <= hidden_up_to or not sys.stderr.isatty()
    with click.progressbar(
        length=total, label=label, file=sys.stderr, hidden=hidden, show_pos=True, item_show_func=_rate
    ) as bar:
        done = 0
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            bar.update(len(chunk), done / max(time.perf_counter() - started, 1e-9))


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:,.0f}/s"
