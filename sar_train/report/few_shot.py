"""Tables of few-shot learning: accuracy over all classes by the number of images per class."""

from __future__ import annotations

from collections.abc import Sequence

from sar_train.report.base_new import linear_probe, zero_shot
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Groups, Scene, grouped, pairs, score, slug
from sar_train.report.scores import shots as shots_of
from sar_train.report.table import Cell, Column, Row, Table, averaged, difference, embolden, words
from sar_train.report.wording import method_name, seeds_of, spread_note, uneven_sides

SECTION = "few-shot"
Series = dict[int, dict[str, list[Result]]]
"""Runs by number of shots and by row."""


def by_dataset(results: ResultSet) -> dict[Scene, Series]:
    """Group runs by backbone and dataset; the number of shots of these scenes is 0 and means nothing."""
    found: dict[Scene, Series] = {}
    groups: Groups = grouped(results.of(SECTION))
    for scene, rows in groups.items():
        found.setdefault(Scene(scene.backbone, scene.dataset, 0), {})[scene.shots] = rows
    return {scene: dict(sorted(series.items(), key=lambda item: item[0] or 10**9)) for scene, series in found.items()}


def tables(results: ResultSet) -> list[Table]:
    """Return a table for each dataset and backbone."""
    return [_table(scene, series) for scene, series in by_dataset(results).items()]


def _table(scene: Scene, series: Series) -> Table:
    runs = [run for rows in series.values() for found in rows.values() for run in found]
    by_shots = [[run for found in rows.values() for run in found] for rows in series.values()]
    body: list[Row] = [
        (words("zero-shot"), *(averaged(zero_shot(found).base) for found in by_shots)),
        (words("linear probe"), *(averaged(linear_probe(found).base) for found in by_shots)),
    ]
    leave, notes = [1], [spread_note(runs), "Bold: the best of each column, the linear probe apart."]
    sides_by_shots = {count: pairs(rows) for count, rows in series.items()}
    for method in dict.fromkeys(name for rows in sides_by_shots.values() for name in rows):
        columns = [rows.get(method, ([], [])) for rows in sides_by_shots.values()]
        for side, name in ((0, method_name(method)), (1, f"{method_name(method)} + SAR")):
            if any(pair[side] for pair in columns):
                body.append((words(name), *(averaged(score(pair[side]).base) for pair in columns)))
                notes += _uneven(name, list(series), [pair[side] for pair in columns])
        if any(all(pair) for pair in columns):
            leave.append(len(body))
            body.append((words("difference"), *(_moved(*pair) for pair in columns)))
            notes += sorted({note for pair in columns if (note := uneven_sides(method_name(method), *pair))})
    heads = (Column("method", text=True), *(Column(shots_of(count)) for count in series))
    rivals = [[place] for place in range(1, len(heads))]
    title = f"Accuracy by number of shots on {scene.dataset}, {scene.backbone}, all classes, in percent"
    key = slug(f"{SECTION}-{scene.dataset}-{scene.backbone}")
    return Table(key, SECTION, title, heads, embolden(body, rivals, leave=leave), tuple(notes))


def _moved(without: Sequence[Result], with_sar: Sequence[Result]) -> Cell:
    before, after = (score(side).base for side in (without, with_sar))
    return difference(after and after.value, before and before.value)


def _uneven(name: str, counts: Sequence[int], columns: Sequence[Sequence[Result]]) -> list[str]:
    """Return a note if some columns have seeds that others lack."""
    seeds = {count: tuple(run.seed for run in runs) for count, runs in zip(counts, columns, strict=True)}
    if len(set(seeds.values())) < 2:
        return []
    parts = [f"{shots_of(count)}: {seeds_of(found) or 'none'}" for count, found in seeds.items()]
    return [f"{name}, seeds at {'; '.join(parts)}"]
