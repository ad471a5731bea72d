"""The row of an input: the best class and the runners-up, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from sar_infer._arrays import Floats
from sar_infer.bulk.items import Flaw
from sar_infer.results import ImageResult

Row = dict[str, Any]
Packed = Any
"""Rows in the form of the output, made by a worker and written by whoever owns the file."""
EmbeddingType = Literal["float32", "float16"]


@dataclass(frozen=True)
class Columns:
    """What a row has beside the columns that all have.

    Attributes:
        label_set: The classes of a conformal set.
        explained: Margin, runner-up and energy.
        embedding: The image's unit row, in this type; None leaves it out.
        width: D, of the embedding.
    """

    label_set: bool = False
    explained: bool = False
    embedding: EmbeddingType | None = None
    width: int = 0


class Form(Protocol):
    """A kind of file with rows."""

    @property
    def suffix(self) -> str:
        """Of its files."""

    def pack(self, rows: Sequence[Row]) -> Packed:
        """Some rows of one part."""

    def write(self, path: Path, packed: Iterable[Packed]) -> None:
        """A part of them."""

    def flaws(self, stream: IO[bytes]) -> tuple[int, list[Row]]:
        """How many rows a part has, and the keys, kinds and reasons of those without an answer."""

    def merge(self, path: Path, parts: Iterable[Callable[[], IO[bytes]]]) -> None:
        """One file of all parts, a piece at a time."""


def answered(key: str, result: ImageResult, embedding: Floats, columns: Columns) -> Row:
    """The row of an image with its classes; ``embedding`` (D,)."""
    best = result.predictions[0]
    row: Row = {
        "key": key,
        "label": best.label,
        "score": best.score,
        "logit": best.logit,
        "similarity": best.similarity,
        "source": best.source,
        "calibrated": best.calibrated,
        "labels": [prediction.label for prediction in result.predictions],
        "scores": [prediction.score for prediction in result.predictions],
        "unknown": result.unknown,
        "reason": result.reason,
    }
    if columns.label_set:
        row["label_set"] = list(result.label_set or ())
    if columns.explained:
        told = result.explanation
        row |= {name: getattr(told, name, None) for name in ("margin", "runner_up", "energy")}
    if columns.embedding:
        row["embedding"] = embedding.astype(columns.embedding)
    return row | {"error": None, "error_kind": None}


def flawed(key: str, flaw: Flaw, columns: Columns) -> Row:
    """The row of an input without an answer."""
    empty: Mapping[str, Any] = dict.fromkeys(names(columns))
    return {**empty, "key": key, "error": flaw.reason, "error_kind": flaw.kind}


def names(columns: Columns) -> list[str]:
    """Of all columns, in order."""
    result = ["key", "label", "score", "logit", "similarity", "source", "calibrated", "labels", "scores"]
    result += ["unknown", "reason"]
    result += ["label_set"] if columns.label_set else []
    result += ["margin", "runner_up", "energy"] if columns.explained else []
    result += ["embedding"] if columns.embedding else []
    return [*result, "error", "error_kind"]
