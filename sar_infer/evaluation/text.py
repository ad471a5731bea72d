"""An evaluation as lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from sar_infer.evaluation.curve import curve_lines
from sar_infer.evaluation.evaluation import Evaluation, LeftOut

WIDTH = 100
_MOST_CLASSES = 20
_MOST_PAIRS = 10
_LONGEST = 24


def text_lines(evaluation: Evaluation, width: int = WIDTH) -> Iterator[str]:
    """Yield the lines.

    Args:
        evaluation: What was measured.
        width: Characters of a line; the matrix is left out where it does not fit.
    """
    yield from _summary(evaluation)
    yield from _trade(evaluation)
    yield from _classes(evaluation)
    yield from _pairs(evaluation)
    yield from _matrix(evaluation, width)
    if evaluation.photo_curve is not None:
        yield from ("", *curve_lines(evaluation.photo_curve))
    if evaluation.findings:
        yield from ("", "findings")
        yield from (f"  {finding.name!r}: {finding.message}" for finding in evaluation.findings)


def left_out_lines(left_out: Sequence[LeftOut]) -> Iterator[str]:
    """Yield a line for each reason for which photos were left out, with the first photo; none for unreadable photos."""
    counts = Counter(item.kind for item in left_out)
    for kind in ("learned", "repeated"):
        if counts[kind]:
            first = next(item for item in left_out if item.kind == kind)
            count = "1 photo" if counts[kind] == 1 else f"{counts[kind]:,} photos"
            yield f"left out {count}, such as {first.image} of {first.label!r}: {first.reason}"


def _summary(evaluation: Evaluation) -> Iterator[str]:
    scores, unknowns = evaluation.calibration, evaluation.unknowns
    yield (
        f"{evaluation.accuracy.of:,} photos of {len(evaluation.per_class):,} classes, among {evaluation.classes:,} to "
        "choose from"
    )
    yield f"accuracy      {evaluation.accuracy}; among the best five {evaluation.among_best.share:.1%}"
    yield (
        f"scores        {scores.mean_score:.1%} on average where {scores.accuracy:.1%} are right; calibration error "
        f"{scores.error:.1%}, of which chance explains {min(scores.error, scores.by_chance):.1%}"
    )
    if unknowns.known is not None:
        above = "" if unknowns.threshold is None else f"; threshold of its probability: {unknowns.threshold:.3f}"
        yield f"unknown       reported for {unknowns.known} of these photos{above}"
    if unknowns.unknown_photos:
        names = ", ".join(map(repr, unknowns.unknown_classes[:3])) + ", …" * (len(unknowns.unknown_classes) > 3)
        verdict = "no threshold of unknown is set"
        if unknowns.unknown_images is not None:
            verdict = f"{unknowns.unknown_images} reported as unknown"
        yield (
            f"other photos  {unknowns.unknown_photos:,} of classes that are not there ({names}): {verdict}; more "
            f"probably unknown than a photo of the classes in {unknowns.auroc:.0%} of pairs"
        )


def _trade(evaluation: Evaluation) -> Iterator[str]:
    """Yield the table of thresholds, the highest first, with the present one marked."""
    unknowns = evaluation.unknowns
    if not unknowns.unknown_photos:
        yield (
            "other photos  none, so how many are found as unknown was not measured; add folders of photos that show "
            "none of the classes to the photos"
        )
        return
    rows = [(one.threshold, f"up to {one.false_alarms:.0%}", one.known, one.unknown_images) for one in unknowns.trade]
    if unknowns.threshold is not None:
        rows.append((unknowns.threshold, "now", unknowns.known, unknowns.unknown_images))
    heads = "false alarms of these photos", "other photos found"
    yield from ("", f"{'threshold':>20}  {heads[0]:<51}  {heads[1]}")
    for threshold, mark, known, others in sorted(rows, key=lambda row: -row[0]):
        yield f"{mark:<9}  {threshold:>9.3f}  {known!s:<51}  {others}"


def _classes(evaluation: Evaluation) -> Iterator[str]:
    shown = evaluation.per_class[:_MOST_CLASSES]
    name_width = max(5, *(len(_cut(result.name)) for result in shown))
    yield from ("", f"{'class':<{name_width}}  accuracy  95 % interval  right of photos  answered  most often called")
    for result in shown:
        share = result.accuracy
        yield (
            f"{_cut(result.name):<{name_width}}  {share.share:8.1%}  {share.interval:>13}  "
            f"{f'{share.count:,} of {share.of:,}':>15}  {result.answered:8,}  {_cut(result.taken_for or '-')}"
        )
    if rest := len(evaluation.per_class) - len(shown):
        yield f"and {rest:,} classes that do better (--format json or --html lists all)"


def _pairs(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.confused:
        return
    yield from ("", "confused most")
    for pair in evaluation.confused[:_MOST_PAIRS]:
        yield f"  {pair.label!r} called {pair.answer!r}: {pair.count} of {pair.of}, such as {pair.images[0]}"
    if rest := sum(pair.count for pair in evaluation.confused[_MOST_PAIRS:]):
        yield f"  and {rest:,} other mistake{'' if rest == 1 else 's'}"


def _matrix(evaluation: Evaluation, width: int) -> Iterator[str]:
    """Yield the confusion matrix: a row for each class with photos, a column for each, and one for other answers."""
    names = sorted(result.name for result in evaluation.per_class)
    number_of = {name: number for number, name in enumerate(names)}
    counts = Counter(
        (answer.label, number_of.get(answer.answer, len(names))) for answer in evaluation.answers if not answer.absent
    )
    others = any(column == len(names) for _, column in counts)
    heads = [*(str(number) for number in range(1, len(names) + 1)), *(["other"] if others else [])]
    cells = [[counts[name, column] for column in range(len(heads))] for name in names]
    widths = [max(len(head), *(len(f"{row[column]}") for row in cells)) + 1 for column, head in enumerate(heads)]
    labels = [f"{number} {_cut(name)}" for number, name in enumerate(names, 1)]
    label_width = max(map(len, labels))
    if len(names) < 2 or label_width + sum(widths) > width:
        return
    yield from ("", "matrix: a row for each class, a column for each answer")
    yield " " * label_width + _row(heads, widths)
    for label, row in zip(labels, cells, strict=True):
        yield f"{label:<{label_width}}" + _row([str(count) if count else "·" for count in row], widths)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
