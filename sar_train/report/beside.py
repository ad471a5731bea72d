"""Our base-to-new results beside the published figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report import published
from sar_train.report.base_new import SECTION as BASE_NEW
from sar_train.report.base_new import zero_shot
from sar_train.report.results import Result, ResultSet, comparable
from sar_train.report.scores import Scene, Score, grouped, on_all, over_datasets, pairs, score, slug
from sar_train.report.table import Column, Row, Table, averaged, difference, number, words

SECTION = "published"
COLUMNS = (
    Column("method", text=True),
    *(Column(name, group) for group in ("published", "ours", "ours + SAR") for name in ("base", "new", "H")),
    *(Column(name, "H above zero-shot") for name in ("published", "ours", "ours + SAR")),
)
NO_SAR = (
    "The paper that proposes SAR (arXiv 2502.11969) prints its own figures; they were not available, so none is shown."
)


def tables(results: ResultSet) -> list[Table]:
    """Return a table for each dataset with published figures, after the averages over the field's eleven."""
    runs = [run for run in results.of(BASE_NEW) if comparable(run)]
    groups = {scene: rows for scene, rows in grouped(runs).items() if scene.shots == 16}
    found = [table for scene, rows in groups.items() if (table := _on_dataset(scene, rows))]
    found = [dataclasses.replace(table, folded=len(found) > 2) for table in found]
    for backbone in dict.fromkeys(scene.backbone for scene in groups):
        found.insert(0, _average(backbone, {s: rows for s, rows in groups.items() if s.backbone == backbone}))
    return found


def _on_dataset(scene: Scene, rows: Mapping[str, list[Result]]) -> Table | None:
    figures = published.of_dataset(scene.dataset)
    if not figures:
        return None
    runs = [run for found in rows.values() for run in found]
    theirs = {k: (v.base, v.new, harmonic_mean(v.base, v.new) or 0.0) for k, v in figures.items()}
    ours: dict[str, tuple[Score | None, Score | None]] = {"clip": (zero_shot(runs), None)}
    for method, (without, with_sar) in pairs(rows).items():
        ours[published.method_key(method)] = score(without), score(with_sar) if with_sar else None
    sources = dict.fromkeys(known.source for known in figures.values())
    title = f"Published figures on {scene.dataset} beside ours, 16 shots, {scene.backbone}, in percent"
    notes = (_backbones(runs), f"Sources: {'; '.join(sources)}.", NO_SAR)
    return Table(f"published-{scene.slug}", SECTION, title, COLUMNS, _rows(theirs, ours), notes)


def _average(backbone: str, groups: Mapping[Scene, Mapping[str, list[Result]]]) -> Table:
    content = published.load()
    theirs = {method: tuple(entry["scores"]) for method, entry in content["averages"].items()}
    runs = [run for rows in groups.values() for found in rows.values() for run in found]
    missing = [dataset for dataset in content["datasets"] if dataset not in {scene.dataset for scene in groups}]
    ours: dict[str, tuple[Score | None, Score | None]] = {}
    if not missing:
        of_eleven = {scene: rows for scene, rows in groups.items() if scene.dataset in content["datasets"]}
        ours["clip"] = (
            over_datasets(zero_shot([r for f in rows.values() for r in f]) for rows in of_eleven.values()),
            None,
        )
        averages = on_all(of_eleven.values())
        ours |= {published.method_key(method): both for method, both in averages.items()}
    beside = "" if missing else f", beside ours under {backbone}"
    title = f"Published averages over 11 datasets, 16 shots{beside}, in percent"
    sources = {published.label(method): entry["source"] for method, entry in content["averages"].items()}
    rows = tuple((*row, words(sources.get(row[0].text, ""))) for row in _rows(theirs, ours))
    columns = (*COLUMNS, Column("source", text=True))
    if missing:  # nothing of ours can stand beside
        keep = [place for place, c in enumerate(columns) if c.group == "published" or c.text]
        columns, rows = tuple(columns[k] for k in keep), tuple(tuple(row[k] for k in keep) for row in rows)
    state = (
        f"Ours cannot stand beside: {len(missing)} of the 11 datasets were not run." if missing else _backbones(runs)
    )
    notes = (f"Under {content['backbone']}.", state, NO_SAR)
    return Table(slug(f"published-average-{backbone}"), SECTION, title, columns, rows, notes)


def _backbones(runs: list[Result]) -> str:
    names = {run["backbone"]["name"]: run["config"].get("pretrained") for run in runs}
    theirs = published.load()["backbone"]
    if all(published.is_published_backbone(name, pretrained) for name, pretrained in names.items()):
        return f"Both under {theirs}."
    return (
        f"Another backbone: the published figures are of {theirs}, ours of {' and '.join(names)}. Accuracies cannot be "
        "compared; how far a method lies above its own zero-shot accuracy (last columns) can, with care."
    )


def _rows(
    theirs: Mapping[str, tuple[float, ...]], ours: Mapping[str, tuple[Score | None, Score | None]]
) -> tuple[Row, ...]:
    known = [*theirs, *(method for method in ours if method not in theirs)]
    zero = ours.get("clip", (None, None))[0]
    body = []
    for method in known:
        figures = theirs.get(method, (None, None, None))
        sides = ours.get(method, (None, None))
        cells = [words(published.label(method)), *(number(value, 2) for value in figures)]
        for side in sides:
            cells += [averaged(side and side.base), averaged(side and side.new), number(side.both if side else None)]
        above = [
            (figures[2], theirs["clip"][2]),
            *((s.both if s else None, zero.both if zero else None) for s in sides),
        ]
        cells += [difference(*pair) if method != "clip" else words("") for pair in above]
        body.append(tuple(cells))
    return tuple(body)
