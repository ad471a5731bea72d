"""Results as text: for people, or as JSON, JSON lines or CSV for programs. Every function yields pieces as it goes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from sar_infer.results import ImageResult

_BAR = 24
_COLUMNS = ("image", "rank", "label", "score", "logit", "similarity", "source", "error")


def text(results: Iterable[ImageResult]) -> Iterator[str]:
    """A picture's name, then a line a class: share of 1, bar, label; ``+`` marks names that are not from the bank."""
    for number, result in enumerate(results):
        gap = "\n" if number else ""
        yield f"{gap}{result.image}\n"
        if result.error is not None:
            yield f"  error: {result.error}\n"
        for prediction in result.predictions:
            bar = ("█" * round(prediction.score * _BAR)).ljust(_BAR, "·")
            mark = "+" if prediction.source == "extended" else " "
            yield f"  {prediction.score:6.1%} {bar} {mark} {prediction.label}\n"


def jsonl(results: Iterable[ImageResult]) -> Iterator[str]:
    """One JSON object a line and picture: the fields of ``ImageResult``."""
    for result in results:
        yield _object(result) + "\n"


def json_array(results: Iterable[ImageResult]) -> Iterator[str]:
    """One JSON array of such objects."""
    separator = "[\n"
    for result in results:
        yield separator + _object(result)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def csv_table(results: Iterable[ImageResult]) -> Iterator[str]:
    """A header, then a row for each picture and class; a picture that could not be read has one row with its error."""
    yield _row(_COLUMNS)
    for result in results:
        if result.error is not None:
            yield _row((result.image, "", "", "", "", "", "", result.error))
        for rank, p in enumerate(result.predictions, start=1):
            yield _row((result.image, rank, p.label, p.score, p.logit, p.similarity, p.source, ""))


FORMATS: dict[str, Callable[[Iterable[ImageResult]], Iterator[str]]] = {
    "text": text,
    "json": json_array,
    "jsonl": jsonl,
    "csv": csv_table,
}


def _object(result: ImageResult) -> str:
    return json.dumps(asdict(result), ensure_ascii=False)


def _row(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
