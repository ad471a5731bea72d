"""Routes whose requests, answers and errors have the shape of another service."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter

from sar_infer.server.problems import Problem


class Door(NamedTuple):
    """The routes of one service.

    Attributes:
        name: Its name, for logs and metrics.
        router: The routes.
        paths: Matches the beginning of their paths, and of paths below them that do not exist.
        error: Returns the content of the answer to a request that is refused.
        key_header: A header that may have the server's key, besides ``Authorization``.
        open_paths: Matches paths that need no key.
    """

    name: str
    router: APIRouter
    paths: re.Pattern[str]
    error: Callable[[Problem], Any]
    key_header: str = "Authorization"
    open_paths: re.Pattern[str] = re.compile(r"(?!)")


def door_of(path: str, doors: Sequence[Door]) -> Door | None:
    """Return the door that a path belongs to; None if it is the server's own."""
    return next((door for door in doors if door.paths.match(path)), None)
