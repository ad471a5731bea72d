"""``sar-train --plan``: what a run would do, as text or JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sar_train.training.preview import Preview

_WIDTH = 100
_INDENT = 14
_MOST_CLASSES = 20
_MOST_NAMES = 10
_SPLITS = {
    "published": "as published",
    "given": "as given",
    "ours": "drawn here: no test photos came with the data",
}
_PROMPTS = {
    "auto": "class statistics choose between it and the learned one, by leaving classes out",
    "learned": "class statistics take the learned one",
    "handcrafted": "class statistics take it",
}


def preview_text(preview: Preview, out: str) -> str:
    """Return the lines of a preview.

    Args:
        preview: what a run would do.
        out: the folder that it would write.
    """
    lines = [
        *_said("data", f"{preview.data}: {preview.layout}"),
        *_said("split", f"{_SPLITS[preview.split]}; {_classes_in_words(preview)}, tested on {preview.tested_on}"),
        "",
        *_classes(preview),
        "",
        *_photos(preview),
        *_names(preview),
        *_said("method", f"{preview.method} on {preview.backbone}; {_schedule(preview)}"),
        *_said("prompt", f"{preview.template!r}; {_PROMPTS.get(preview.prompt or '', 'no class statistics')}"),
        *_novel(preview),
        *_said("time", _time(preview)),
        "",
        f"nothing was trained or written; without --plan the run goes to {out}",
    ]
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)


def _said(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{head:<{_INDENT}}", subsequent_indent=" " * _INDENT,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _classes_in_words(preview: Preview) -> str:
    base = [one for one in preview.classes if not one.new]
    learned = sum(one.learned for one in base)
    new = len(preview.classes) - len(base)
    text = f"{learned:,} photos of {len(base):,} classes to learn from"
    return f"{text}, {new:,} new classes to test alone" if new else text


def _classes(preview: Preview) -> Iterator[str]:
    shown = preview.classes[:_MOST_CLASSES]
    width = max(5, *(len(one.name) for one in shown))
    yield f"{'class':<{width}}{'train':>8}{'val':>8}{'test':>8}{'learned':>9}"
    for one in shown:
        learned = "new" if one.new else f"{one.learned:,}"
        yield f"{one.name:<{width}}{one.train:>8,}{one.val:>8,}{one.test:>8,}{learned:>9}"
    if rest := preview.classes[_MOST_CLASSES:]:
        counts = (sum(getattr(one, split) for one in rest) for split in ("train", "val", "test", "learned"))
        train, val, test, learned_photos = counts
        more = f"and {len(rest):,} more"
        yield f"{more:<{width}}{train:>8,}{val:>8,}{test:>8,}{learned_photos:>9,}"


def _photos(preview: Preview) -> Iterator[str]:
    if preview.checked is None:
        return
    bad = [finding for finding in preview.checked.findings if finding.severity != "ok"]
    yield from _said(
        "photos", f"{preview.checked.decoded:,} were decoded; {'all is well' if not bad else 'look at this:'}"
    )
    for finding in bad:
        yield from _said(f"  {finding.severity}", "; ".join(filter(None, (finding.message, finding.mend))))


def _names(preview: Preview) -> Iterator[str]:
    odd = preview.names
    yield from _said("names", f"{len(odd):,} are duplicates:" if odd else "no duplicates")
    for finding in odd[:_MOST_NAMES]:
        hint = "" if finding.suggestion is None else f" -> {finding.suggestion!r}"
        yield from _said("  warning", f"{finding.name!r} {finding.message}{hint}")
    if len(odd) > _MOST_NAMES:
        yield from _said("", f"and {len(odd) - _MOST_NAMES:,} more (--format json lists all)")


def _schedule(preview: Preview) -> str:
    schedule = preview.schedule
    return (
        f"{preview.expected.steps:,} steps: {schedule['epochs']:,} epochs, {schedule['batch_size']:,} photos a step, "
        f"learning rate {schedule['learning_rate']:g}"
    )


def _novel(preview: Preview) -> Iterator[str]:
    if preview.novel is None:
        return
    count, source = preview.novel["count"], preview.novel["source"]
    if count is None:
        yield from _said("novel names", f"from {source}, which is asked when the run starts")
    else:
        first = ", ".join(preview.novel["first"])
        yield from _said("novel names", f"{count:,} from {source}" + (f", the first: {first}" if first else ""))


def _time(preview: Preview) -> str:
    expected = preview.expected
    parts = [] if expected.encoding is None else [f"{duration(expected.encoding)} to encode {expected.photos:,} views"]
    parts.append(f"{duration(expected.training)} to train")
    if expected.statistics:
        parts.append(f"{duration(expected.statistics)} to train again for class statistics")
    return (
        f"about {duration(expected.seconds)} as busy as this machine is now, from a few photos and steps: "
        f"{', '.join(parts)}; fitting statistics and evaluating come on top"
    )


def duration(seconds: float) -> str:
    """Return a time in words, as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
