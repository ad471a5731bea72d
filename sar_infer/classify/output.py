"""Results as text for people, or as JSON, JSON lines or CSV for programs; each function yields pieces as it goes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from sar_infer.errors import one_line
from sar_infer.results import Explanation, ImageResult
from sar_infer.storage.strict_json import printable_json

_BAR = 24
_COLUMNS = ("image", "rank", "label", "score", "logit", "similarity", "source", "error")
_OPTIONAL = ("unknown", "reason", "label_set", "margin", "runner_up", "nearest", "labels", "bank")
_WHERE = ("", ", upper left", ", upper right", ", lower left", ", lower right")
"""Of `CROPS`, in words."""
_BETWEEN = " | "
"""Separates the names of one cell, as it separates the phrases of a class file."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal could take for a command, or that change the direction of text."""
_FORMULA = ("=", "+", "-", "@")
"""A text that begins with one of these is a formula to a spreadsheet."""


def text(results: Iterable[ImageResult]) -> Iterator[str]:
    """Yield the name of each image, then a line a class: score, bar, label; ``+`` marks names that are not the bank's.

    The probability that it is none of them comes first, or why it is called unknown; a set and an explanation follow.
    Of several classes in an image only those that it shows have a line, with the quarter where each is most probable.
    Characters in names of files and classes that a terminal could take for a command are escaped.
    """
    for number, result in enumerate(results):
        if number:
            yield "\n"
        for line in _lines(result):
            yield f"{one_line(line, len(line))}\n"


def jsonl(results: Iterable[ImageResult]) -> Iterator[str]:
    """Yield a line with a JSON object for each image: the fields of ``ImageResult``."""
    for result in results:
        yield _object(result) + "\n"


def json_array(results: Iterable[ImageResult]) -> Iterator[str]:
    """Yield one JSON array of the objects that ``jsonl`` yields."""
    separator = "[\n"
    for result in results:
        yield separator + _object(result)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def csv_table(results: Iterable[ImageResult]) -> Iterator[str]:
    """Yield a header, then a row for each image, bank and class; an unreadable image has one row with its error.

    Control characters in names are escaped, and a text that a spreadsheet would take for a formula begins with ``'``.
    """
    yield _row(_COLUMNS + _OPTIONAL)
    for result in results:
        if result.error is not None:
            yield _row((result.image, "", "", "", "", "", "", result.error, *[""] * len(_OPTIONAL)))
            continue
        for bank, one in {"": result}.items() if result.banks is None else result.banks.items():
            optional = *_cells(one), bank
            if not one.predictions:
                yield _row((one.image, *[""] * (len(_COLUMNS) - 1), *optional))
            for rank, p in enumerate(one.predictions, start=1):
                yield _row((one.image, rank, p.label, p.score, p.logit, p.similarity, p.source, "", *optional))


FORMATS: dict[str, Callable[[Iterable[ImageResult]], Iterator[str]]] = {
    "text": text,
    "json": json_array,
    "jsonl": jsonl,
    "csv": csv_table,
}


def optional_fields(result: ImageResult) -> dict[str, Any]:
    """Return, as for JSON, the fields that are there only if they were asked for."""
    fields: dict[str, Any] = {} if result.reason is None else {"reason": result.reason}
    if result.label_set is not None:
        fields["label_set"] = list(result.label_set)
    if result.explanation is not None:
        fields["explanation"] = asdict(result.explanation)
    if result.labels is not None:
        fields["labels"] = [one._asdict() for one in result.labels]
    return fields


def _object(result: ImageResult) -> str:
    if result.banks is None:
        return printable_json(_fields(result, "image", "predictions", "error", "unknown"))
    banks = {name: _fields(one, "predictions", "unknown") for name, one in result.banks.items()}
    return printable_json({"image": result.image, "banks": banks, "error": None})


def _fields(result: ImageResult, *names: str) -> dict[str, Any]:
    fields = asdict(result)
    return {name: fields[name] for name in names} | optional_fields(result)


def _lines(result: ImageResult) -> Iterator[str]:
    yield result.image
    if result.error is not None:
        yield f"  error: {result.error}"
    for name, own in (result.banks or {}).items():
        yield f"  {name}:"
        yield from (f"  {line}" for line in [*_lines(own)][1:])
    if result.reason is not None:
        yield f"  unknown: {result.reason}"
    elif result.unknown is not None and result.labels is None:
        yield f"  {result.unknown:6.1%} unknown"
    if result.labels is not None:
        from sar_infer.images.preprocess import CROPS  # with numpy and Pillow, which --help does without

        for one in result.labels:
            yield f"  {one.score:6.1%} {_bar(one.score)}   {one.label}{_WHERE[CROPS.index(one.box)]}"
        if not result.labels:
            yield "  none of the classes"
        return
    for prediction in result.predictions:
        mark = "+" if prediction.source == "extended" else " "
        yield f"  {prediction.score:6.1%} {_bar(prediction.score)} {mark} {prediction.label}"
    if result.label_set is not None:
        yield f"  one of: {', '.join(result.label_set) or 'no class is likely enough'}"
    if result.explanation is not None:
        yield from _reasons(result.explanation)


def _bar(score: float) -> str:
    return ("█" * round(score * _BAR)).ljust(_BAR, "·")


def _reasons(why: Explanation) -> Iterator[str]:
    if why.runner_up is not None:
        yield f"  ahead of {why.runner_up} by {why.margin:.1%}"
    if why.nearest:
        yield f"  nearest to the best: {', '.join(f'{name} ({cosine:.2f})' for name, cosine in why.nearest)}"


def _cells(result: ImageResult) -> tuple[object, ...]:
    """Return the optional cells, the same in each row of an image; empty if they were not asked for."""
    why = result.explanation
    return (
        "" if result.unknown is None else result.unknown,
        result.reason or "",
        _BETWEEN.join(result.label_set or ()),
        *((why.margin, why.runner_up, _BETWEEN.join(n for n, _ in why.nearest)) if why else [""] * 3),
        _BETWEEN.join(one.label for one in result.labels or ()),
    )


def _row(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(
        _text(value) if isinstance(value, str) else value for value in values
    )
    return line.getvalue()


def _text(value: str) -> str:
    value = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), value)
    return f"'{value}" if value.startswith(_FORMULA) else value
