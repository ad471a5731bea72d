"""Tables of base-to-new: accuracies without SAR and with it, relations, and a method's other ways to answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from sar_train.report.results import Result, ResultSet, comparable, differing_settings
from sar_train.report.scores import (
    Groups,
    Mean,
    Scene,
    Score,
    grouped,
    in_one_ranking,
    mean,
    over_datasets,
    pairs,
    score,
    shots,
    slug,
)
from sar_train.report.table import Column, Row, Table, averaged, difference, embolden, number, words
from sar_train.report.wording import listed, method_name, seeds_of, spread_note, uneven_sides

SECTION = "base-to-new"
SIDES = ("without SAR", "with SAR")
OPEN, WITH_STATISTICS = "open H", "with statistics"
MEASURES = ("base", "new", "H", OPEN, WITH_STATISTICS)
COLUMNS = (
    Column("method", text=True),
    *(Column(name, side, text=name == "seeds") for side in SIDES for name in (*MEASURES, "seeds")),
    *(Column(name, "difference") for name in MEASURES),
)
RIVALS = ((1, 7), (2, 8), (3, 9), (4, 10), (5, 11))
"""Columns of each measure on both sides, which compete for the bold figure."""
DIFFERENCES = COLUMNS.index(Column("base", "difference"))
NOTES = {
    OPEN: "Open H is the same mean in one ranking over base and new classes.",
    WITH_STATISTICS: "With statistics is open H where class statistics rank, new classes added by name; the other "
    "columns are the prompt alone.",
}
OF_DATASET = ("data", "template", "novel")
"""Settings that always differ between datasets."""


def tables(results: ResultSet) -> list[Table]:
    """Return all tables of the protocol; averages come first if there are several datasets."""
    groups = grouped(results.of(SECTION))
    found = [*averages(groups)]
    for scene, rows in groups.items():
        found.append(accuracies(scene, rows))
        more = [table for table in (relations(scene, rows), other_ways(scene, rows)) if table.rows]
        found += [dataclasses.replace(table, folded=len(groups) > 2) for table in more]
    return found


def accuracies(scene: Scene, rows: Mapping[str, list[Result]]) -> Table:
    """Return base, new and harmonic mean of every method on one dataset."""
    runs = [run for found in rows.values() for run in found]
    body = [_row("zero-shot", zero_shot(runs), None), _row("linear probe (base only)", linear_probe(runs), None)]
    notes = [
        spread_note(runs),
        "H is the harmonic mean of the averaged base and new accuracies. Bold: the best, the linear probe apart.",
        "Differences are those of the figures before rounding, with the deviation of the difference at the same seed.",
    ]
    for method, (without, with_sar) in pairs(rows).items():
        before, after = (score(side) if side else None for side in (without, with_sar))
        row = _row(method_name(method), before, after)
        body.append(_with_deviations(row, without, with_sar))
        if note := uneven_sides(method_name(method), without, with_sar):
            notes.append(note)
    if varying := zero_shot_varies(runs):
        notes.append(varying)
    notes += incomparable(runs)
    title = f"Base to new on {scene}: accuracy in percent"
    marked = embolden(body, RIVALS, leave=[1])
    return without_unmeasured(Table(f"{SECTION}-{scene.slug}", SECTION, title, COLUMNS, marked, tuple(notes)))


def without_unmeasured(table: Table) -> Table:
    """Explain the columns of one ranking, and leave those out that no run of a table was measured in."""
    notes, kept = list(table.notes[:2]), list(range(len(table.columns)))
    for name, note in NOTES.items():
        places = [place for place, column in enumerate(table.columns) if column.name == name]
        if any(row[place].text for row in table.rows for place in places):
            notes.append(note)
        else:
            kept = [place for place in kept if place not in places]
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    columns = tuple(table.columns[place] for place in kept)
    return dataclasses.replace(table, columns=columns, rows=rows, notes=(*notes, *table.notes[2:]))


def incomparable(runs: Iterable[Result]) -> list[str]:
    """Return a note if a published dataset was not run on its published split with all its images."""
    found = sorted({run.dataset for run in runs if not comparable(run)})
    return [f"Not the published split and photos, not to be compared with papers: {listed(found)}."] if found else []


def averages(groups: Groups) -> list[Table]:
    """Return averages over datasets: a table for each backbone and number of shots with more than one dataset."""
    found = []
    for backbone, count in dict.fromkeys((scene.backbone, scene.shots) for scene in groups):
        scenes = {s: rows for s, rows in groups.items() if (s.backbone, s.shots) == (backbone, count)}
        if len(scenes) > 1:
            found.append(_average(backbone, count, scenes))
    return found


def _average(backbone: str, count: int, scenes: Groups) -> Table:
    by_scene = {scene: pairs(rows) for scene, rows in scenes.items()}
    varied = []
    zero = over_datasets(zero_shot([run for runs in rows.values() for run in runs]) for rows in scenes.values())
    body, leave, missing = [_row("zero-shot", zero, None, len(scenes))], [], []
    for method in dict.fromkeys(name for found in by_scene.values() for name in found):
        found = [found[method] for found in by_scene.values() if method in found]
        both = [pair for pair in found if all(pair)]
        used = both or found
        sides = [[score(pair[side]) for pair in used if pair[side]] for side in (0, 1)]
        if len(used) < len(scenes) or any(side and len(side) < len(scenes) for side in sides):
            leave.append(len(body))
            missing.append(f"{method_name(method)} ({max(map(len, sides))})")
        before, after = (over_datasets(side) if side else None for side in sides)
        row = _row(method_name(method), before, after, len(sides[0]), len(sides[1]))
        if not both:  # no dataset has both sides, so there is nothing to subtract
            row = (*row[:DIFFERENCES], *(words("") for _ in MEASURES))
        body.append(row)
        varied += sorted({note for pair in both if (note := uneven_sides(method_name(method), *pair))})
        for runs in ([run for pair in used for run in pair[side]] for side in (0, 1)):
            keys = [key for key in differing_settings(runs) if key not in OF_DATASET]
            varied += [f"{method_name(runs[0].name)}: not the same {listed(keys)} on all datasets"] if keys else []
    columns = tuple(Column("datasets", c.group) if c.name == "seeds" else c for c in COLUMNS)
    names = ", ".join(scene.dataset for scene in scenes)
    notes = [f"Averages of base and of new over {names}; H is the harmonic mean of these averages. Bold: the best."]
    if missing:
        notes.append(
            f"Not on all {len(scenes)} datasets, and never bold: {', '.join(missing)}. A method that was run both ways "
            "on some of them is averaged over those."
        )
    notes += varied + incomparable(run for rows in scenes.values() for runs in rows.values() for run in runs)
    title = f"Base to new, average of {len(scenes)} datasets, {shots(count)}, {backbone}: accuracy in percent"
    key = slug(f"{SECTION}-average-{count or 'all'}shots-{backbone}")
    return without_unmeasured(Table(key, SECTION, title, columns, embolden(body, RIVALS, leave=leave), tuple(notes)))


def _row(
    name: str, without: Score | None, with_sar: Score | None, n_without: int | None = None, n_with: int | None = None
) -> Row:
    cells = [words(name)]
    for found, count in ((without, n_without), (with_sar, n_with)):
        cells += [averaged(found and found.base), averaged(found and found.new), number(found.both if found else None)]
        cells += [number(part and part.both) for part in in_one(found)]
        cells.append(
            number(count or None, 0) if found and not found.seeds else words(seeds_of(found.seeds if found else ()))
        )
    before, after = (
        (*(found.values() if found else (None,) * 3), *(part.both if part else None for part in in_one(found)))
        for found in (without, with_sar)
    )
    return (*cells, *(difference(b, a) for a, b in zip(before, after, strict=True)))


def _with_deviations(row: Row, without: Sequence[Result], with_sar: Sequence[Result]) -> Row:
    """Add to the differences of base and new accuracy how much they vary over seeds that both sides have."""
    before, after = ({run.seed: run["metrics"] for run in side} for side in (without, with_sar))
    if before.keys() != after.keys():
        return row
    cells = list(row)
    for column, key in ((DIFFERENCES, "base_accuracy"), (DIFFERENCES + 1, "new_accuracy")):
        known = [seed for seed in before if before[seed][key] is not None and after[seed][key] is not None]
        moved = mean(after[seed][key] - before[seed][key] for seed in known)
        if moved and moved.sd is not None:
            shown = number(moved.value, sd=moved.sd)
            cells[column] = dataclasses.replace(cells[column], sd=shown.sd, spread=shown.spread)
    return tuple(cells)


def in_one(found: Score | None) -> tuple[Score | None, Score | None]:
    """Return the scores in one ranking, and those with class statistics."""
    return (found.open, found.statistics) if found else (None, None)


def zero_shot(runs: Sequence[Result]) -> Score:
    """Return the accuracies of the hand-crafted template; a seed changes them only if it draws the test images."""
    in_one = {run.seed: found for run in reversed(runs) if (found := in_one_ranking(run, "zero_shot"))}
    apart = _of_seeds({run.seed: run["zero_shot"] for run in reversed(runs)})
    return dataclasses.replace(apart, open=_of_seeds(in_one) if in_one else None)


def _of_seeds(by_seed: Mapping[int, Mapping[str, float | None]]) -> Score:
    parts = [[found.get(key) for found in by_seed.values()] for key in ("base_accuracy", "new_accuracy")]
    if all(len(set(values)) == 1 for values in parts):
        return Score(mean(parts[0][:1]), mean(parts[1][:1]))
    return Score(mean(parts[0]), mean(parts[1]), tuple(sorted(by_seed)))


def zero_shot_varies(runs: Iterable[Result]) -> str:
    """Warn if not all runs have the zero-shot accuracy that a table shows once; else return an empty text."""
    values = [run["zero_shot"]["base_accuracy"] for run in runs]
    gap = max(values) - min(values)
    return f"the runs' zero-shot accuracies differ by up to {gap:.1f}: templates or photos differ" if gap > 0.05 else ""


def linear_probe(runs: Iterable[Result]) -> Score:
    """Return the accuracy of logistic regression on the same shots: one value a seed, whatever the method."""
    by_seed = {run.seed: (run["linear_probe"] or {}).get("base_accuracy") for run in runs}
    found = {seed: value for seed, value in by_seed.items() if value is not None}
    return Score(mean(found.values()), None, tuple(sorted(found)))


def relations(scene: Scene, rows: Mapping[str, list[Result]]) -> Table:
    """Return SAR's own measure: Spearman's correlation of similarities among held-out names."""

    def measured(runs: Iterable[Result], when: str) -> Mean | None:
        return mean((run["relations"] or {}).get(when) for run in runs)

    body = []
    for method, (without, with_sar) in pairs(rows).items():
        after = [measured(side, "after") for side in (without, with_sar)]
        if any(after):
            start = measured([*without, *with_sar], "before")
            first = number(start.value if start else None, 2)
            moved = difference(after[1] and after[1].value, after[0] and after[0].value, 2)
            body.append((words(method_name(method)), first, *(averaged(m, 2) for m in after), moved))
    names = max((int((r["relations"] or {}).get("names") or 0) for runs in rows.values() for r in runs), default=0)
    columns = (Column("method", text=True), *map(Column, ("at the start", "without SAR", "with SAR", "difference")))
    note = (
        f"Spearman's rank correlation between hand-crafted and prompted similarities of {names} names that took no "
        "part in training; 1 is as the hand-crafted prompt has them."
    )
    title = f"Relations among held-out names on {scene}"
    return Table(f"relations-{scene.slug}", SECTION, title, columns, embolden(body, [(2, 3)]), (note,))


def other_ways(scene: Scene, rows: Mapping[str, list[Result]]) -> Table:
    """Return accuracies by other ways to answer, such as DePT's text branch."""
    body = []
    for name, runs in rows.items():
        for way in dict.fromkeys(way for run in runs for way in run["other_metrics"] or {}):
            found = score(runs, way)
            cells = (averaged(found.base), averaged(found.new), number(found.both), words(seeds_of(found.seeds)))
            body.append((words(method_name(name)), words(way.replace("-", " ")), *cells))
    columns = (
        Column("method", text=True),
        Column("answers by", text=True),
        *map(Column, ("base", "new", "H")),
        Column("seeds", text=True),
    )
    title = f"Other ways to answer on {scene}: accuracy in percent"
    return Table(f"other-ways-{scene.slug}", SECTION, title, columns, tuple(body))
