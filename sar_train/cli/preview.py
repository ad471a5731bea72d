"""``sar-train --plan``: what a run would do, as text or JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sar_train.training.preview import Preview

Paragraph = tuple[str, str]
"""A head and its text."""
_WIDTH = 100
_INDENT = 14
_MOST_CLASSES = 20
_MOST_NAMES = 10
_COLUMNS = ("train", "val", "test", "learned")
_SPLITS = {"published": "as published", "given": "as given", "ours": "drawn here: no test photos came with the data"}
_PROMPTS = {
    "auto": "the class model takes it, or the learned one if that is better on held-out classes",
    "learned": "the class model takes the learned one",
    "handcrafted": "the class model takes it, and nothing is trained",
}


def preview_text(preview: Preview, out: str) -> str:
    """Return the lines of a preview.

    Args:
        preview: what a run would do.
        out: the folder that it would write.
    """
    lines = [*_wrapped(_data(preview)), "", *_classes(preview.classes), ""]
    lines += _wrapped([*_checks(preview), *_training(preview), ("time", _time(preview.expected))])
    lines += ["", f"nothing was trained; without --plan the run goes to {out}"]
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)


def _wrapped(paragraphs: Iterable[Paragraph]) -> Iterator[str]:
    for head, text in paragraphs:
        start, indent = f"{head:<{_INDENT}}", " " * _INDENT
        yield from textwrap.wrap(
            start + text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )


def _data(preview: Preview) -> Iterator[Paragraph]:
    base = [one for one in preview.classes if not one["new"]]
    learned, new = sum(one["learned"] for one in base), len(preview.classes) - len(base)
    yield "data", f"{preview.data}: {preview.layout}"
    classes = f"{learned:,} photos of {len(base):,} classes to learn from"
    classes += f", {new:,} new classes only to test" if new else ""
    yield "split", f"{_SPLITS[preview.split]}; {classes}, tested on {preview.tested_on}"


def _checks(preview: Preview) -> Iterator[Paragraph]:
    """Yield what is odd about photos, labels and names."""
    if preview.checked is not None:
        findings = preview.checked["findings"]
        decoded = f"{preview.checked['decoded']:,} were decoded"
        yield "photos", f"{decoded}; {'look at this:' if findings else 'all is well'}"
        yield from ((f"  {finding['severity']}", finding["what"]) for finding in findings)
    if preview.label_check is not None:
        count, judged = len(preview.label_check.issues), len(preview.label_check.judged)
        yield "labels", f"{count:,} of {judged:,} photos look like another class" if count else "no photo is in doubt"
    odd = preview.names
    yield "names", f"{len(odd):,} are duplicates:" if odd else "no duplicates"
    for finding in odd[:_MOST_NAMES]:
        hint = "" if finding.suggestion is None else f" -> {finding.suggestion!r}"
        yield "  warning", f"{finding.name!r} {finding.message}{hint}"
    if len(odd) > _MOST_NAMES:
        yield "", f"and {len(odd) - _MOST_NAMES:,} more (--format json lists all)"


def _training(preview: Preview) -> Iterator[Paragraph]:
    schedule = preview.schedule
    yield (
        "method",
        f"{preview.method} on {preview.backbone}; {preview.expected['steps']:,} steps: {schedule['epochs']:,} epochs, "
        f"{schedule['batch_size']:,} photos a step, learning rate {schedule['learning_rate']:g}",
    )
    yield "prompt", f"{preview.template!r}; {_PROMPTS.get(preview.prompt or '', 'no class model')}"
    if preview.novel is not None:
        count, source, first = (preview.novel[key] for key in ("count", "source", "first"))
        names = f", the first: {', '.join(first)}" if first else ""
        asked = f"from {source}, which is asked when the run starts"
        yield "auxiliary", asked if count is None else f"{count:,} from {source}{names}"


def _time(expected: Mapping[str, Any]) -> str:
    pieces = [] if expected["encoding"] is None else [(expected["encoding"], f"to encode {expected['photos']:,} views")]
    pieces += [(expected["halves"], "to train on each half of the classes")] if expected["halves"] else []
    pieces += [(expected["training"], "to train on all")] if expected["training"] and expected["certain"] else []
    pieces += [(expected["evaluating"], "to evaluate")] if expected["evaluating"] else []
    total = duration(expected["seconds"])
    if not expected["certain"]:
        total += f", or {duration(expected['seconds'] + expected['training'])} if the learned prompt is better"
    return (
        f"about {total}, as busy as this machine is now, from a few photos and steps: "
        + "".join(f"{duration(seconds)} {what}, " for seconds, what in pieces)
        + "and some seconds for the class model and the evaluation"
    )


def _classes(classes: Sequence[dict[str, Any]]) -> Iterator[str]:
    shown, rest = classes[:_MOST_CLASSES], classes[_MOST_CLASSES:]
    width = max(5, *(len(one["name"]) for one in shown))
    yield f"{'class':<{width}}{'train':>8}{'val':>8}{'test':>8}{'learned':>9}"
    rows = [(one["name"], [one[key] for key in _COLUMNS], one["new"]) for one in shown]
    if rest:
        rows.append((f"and {len(rest):,} more", [sum(one[key] for one in rest) for key in _COLUMNS], False))
    for name, (train, val, test, learned), new in rows:
        yield f"{name:<{width}}{train:>8,}{val:>8,}{test:>8,}{'new' if new else f'{learned:,}':>9}"


def duration(seconds: float) -> str:
    """Return a time in words, as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
