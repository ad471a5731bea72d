"""Tables of prompts on other datasets than their own: cross-dataset transfer and domain generalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_train.report import published
from sar_train.report.base_new import zero_shot as zero_shot_score
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Mean, Scene, grouped, mean, pairs, score, slug
from sar_train.report.table import Column, Row, Table, averaged, difference, embolden, number, words
from sar_train.report.wording import method_name, spread_note, uneven_sides

TITLES = {"cross-dataset": "Cross-dataset transfer", "domain-generalisation": "Domain generalisation"}
NUMBERS = {"cross-dataset": ("targets", 10), "domain-generalisation": ("variants", 4)}
"""The published average of each protocol, and over how many targets it is."""
TCP = (
    "TCP's class-aware tokens come from the training template here; its authors' code takes the target's, which tells "
    "the prompt of the domain."
)


def tables(results: ResultSet) -> list[Table]:
    """Return a table for each protocol, source, number of shots and backbone; for ImageNet the published figures."""
    found = []
    for protocol in TITLES:
        groups = grouped(results.of(protocol))
        found += [_table(protocol, scene, rows) for scene, rows in groups.items()]
        if any(scene.dataset == "imagenet" for scene in groups):
            found.append(_published(protocol))
    return found


def _table(protocol: str, scene: Scene, rows: Mapping[str, list[Result]]) -> Table:
    runs = [run for found in rows.values() for run in found]
    targets = list(dict.fromkeys(name for run in runs for name in run["targets"] or {}))
    body: list[Row] = [_row("zero-shot", runs, targets, zero_shot=True)]
    leave, uneven = [], []
    for method, sides in pairs(rows).items():
        names = method_name(method), f"{method_name(method)} + SAR"
        body += [_row(name, side, targets) for name, side in zip(names, sides, strict=True) if side]
        if all(sides):
            leave.append(len(body))
            moved = (difference(b.value, a.value) for a, b in zip(body[-2][1:], body[-1][1:], strict=True))
            body.append((words("difference"), *moved))
            uneven += [note] if (note := uneven_sides(names[0], *sides)) else []
    each = (*targets, "average")
    columns = (Column("method", text=True), Column(scene.dataset, "source"), *(Column(k, "targets") for k in each))
    rivals = [[place] for place in range(1, len(columns))]
    notes = [spread_note(runs), "The average is over the targets, the source left out. Bold: the best of each column."]
    if any(run["config"]["method"] == "tcp" for run in runs):
        notes.append(TCP)
    notes += uneven
    title = f"{TITLES[protocol]} from {scene}: accuracy in percent"
    return Table(
        f"{protocol}-{scene.slug}", protocol, title, columns, embolden(body, rivals, leave=leave), tuple(notes)
    )


def _row(name: str, runs: Sequence[Result], targets: Sequence[str], *, zero_shot: bool = False) -> Row:
    """Return the accuracies of runs, or of zero-shot, on the source, on each target, and the mean over targets."""
    key = "zero_shot" if zero_shot else "accuracy"
    source = (zero_shot_score if zero_shot else score)(runs).base
    parts = [mean((run["targets"] or {}).get(target, {}).get(key) for run in runs) for target in targets]
    if zero_shot:  # the same for all seeds
        source, *parts = (part and Mean(part.value, None) for part in (source, *parts))
    complete = all(parts) and bool(parts)
    average = mean(part.value for part in parts if part) if complete else None
    return (words(name), averaged(source), *map(averaged, parts), number(average.value if average else None))


def _published(protocol: str) -> Table:
    content = published.load()
    average, count = NUMBERS[protocol]
    each = list(next(iter(content["variants"].values()))) if protocol == "domain-generalisation" else []
    body = []
    for method, figures in content["transfer"].items():
        own = content["variants"].get(method, {})
        cells = [number(figures["source"], 2), number(figures.get(average), 2), *(number(own.get(k), 2) for k in each)]
        body.append((words(published.label(method)), *cells))
    heads = ("ImageNet, source", f"average of {count} targets", *each)
    columns = (Column("method", text=True), *map(Column, heads))
    notes = [
        f"{content['backbone']}, 16 shots of ImageNet's 1,000 classes. Source: {content['sources']['transfer']}.",
        "Comparable only with runs from ImageNet under the same backbone.",
    ]
    if each:
        notes.append(f"Single targets: {content['sources']['variants']}; their averages are not those beside them.")
    key = slug(f"{protocol}-published")
    return Table(key, protocol, f"{TITLES[protocol]}, published", columns, tuple(body), tuple(notes))
