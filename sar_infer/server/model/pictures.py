"""Pictures of a protocol that has no error for one picture alone: a bad one fails its whole call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from sar_infer.errors import ImageError
from sar_infer.server.model.batcher import Finish
from sar_infer.server.model.engine import Engine, Picture
from sar_infer.server.problems import IMAGE_CODES, Problem

T = TypeVar("T")


async def all_of(engine: Engine, pictures: Sequence[Picture], finish: Finish[T], places: Sequence[str]) -> list[T]:
    """What ``finish`` makes of the unit row (1, D) of each picture, in order.

    Args:
        engine: Leased.
        pictures: As in ``Engine.each``.
        finish: As in ``Engine.each``; gives something else than None.
        places: What the client calls each picture.

    Raises:
        Problem: a picture is bad; the first is named.
    """
    for picture, place in zip(pictures, places, strict=True):
        if isinstance(picture, ImageError):
            raise _bad(picture, place)
    values = []
    for outcome, place in zip(await engine.each(pictures, finish), places, strict=True):
        if outcome.error is not None:
            raise _bad(outcome.error, place)
        assert outcome.value is not None  # noqa: S101 - one of both is there
        values.append(outcome.value)
    return values


def _bad(error: ImageError, place: str) -> Problem:
    return Problem(IMAGE_CODES[error.kind], f"{place}: {error}")
