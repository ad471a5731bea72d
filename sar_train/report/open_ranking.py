"""Tables of one ranking over base and new classes, as a deployed classifier has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Scene, grouped, in_one_ranking, mean
from sar_train.report.table import Column, Row, Table, averaged, embolden, number, words
from sar_train.report.wording import method_name, seeds_of, spread_note

SECTION = "open"
OVER = {"images": "over images", "per_class": "every class counting the same"}
ACCURACIES = ("base_accuracy", "new_accuracy", "accuracy")
AREAS = {"auroc": "AUROC", "openworld_auc": "OpenworldAUC", "ausuc": "AUSUC"}
COLUMNS = (
    Column("method", text=True),
    *map(Column, ("open base", "open new", "open H", "open accuracy", *AREAS.values())),
    Column("seeds", text=True),
)


def tables(results: ResultSet) -> list[Table]:
    """Return two tables for each dataset that was measured so: over images and, folded, over classes."""
    found = []
    for scene, rows in grouped(results.of("base-to-new")).items():
        found += [table for over in OVER if (table := _table(scene, rows, over)).rows]
    return found


def _table(scene: Scene, rows: Mapping[str, list[Result]], over: str) -> Table:
    runs = [run for found in rows.values() for run in found]
    body = [_row("zero-shot", runs, "zero_shot", over)]
    for name, found in rows.items():
        body.append(_row(method_name(name), found, "metrics", over))
        ways = dict.fromkeys(way for run in found for way in run["other_metrics"] or {})
        body += [_row(f"{method_name(name)}, {way.replace('-', ' ')}", found, way, over) for way in ways]
    marked = embolden([row for row in body if row], [(place,) for place in range(1, len(COLUMNS) - 1)])
    notes = (
        spread_note(runs),
        "Every image is ranked among base and new classes together. Accuracies are in percent, open H is the harmonic "
        "mean of the averaged open base and open new; areas lie between 0 and 1. Bold: the best.",
        "AUROC: a base image has a larger base probability than a new one. OpenworldAUC: and both are right among the "
        "classes of their own side. AUSUC: the area under open new against open base accuracy while an offset is "
        "taken off the base logits.",
    )
    key = f"{SECTION}-{scene.slug}" if over == "images" else f"{SECTION}-classes-{scene.slug}"
    title = f"One ranking over base and new classes on {scene}, {OVER[over]}"
    return Table(key, SECTION, title, COLUMNS, marked, notes, folded=over != "images")


def _row(name: str, runs: Sequence[Result], way: str, over: str) -> Row:
    """Return a row, empty where no run has such measures; what does not depend on the seed has no deviation."""
    found = {run.seed: part for run in reversed(runs) if (part := in_one_ranking(run, way, over))}
    if not found:
        return ()
    keys = (*ACCURACIES, *AREAS)
    values = {key: [part.get(key) for part in found.values()] for key in keys}
    if way == "zero_shot" and all(len(set(column)) == 1 for column in values.values()):
        values, found = {key: column[:1] for key, column in values.items()}, {}
    means = {key: mean(column) for key, column in values.items()}
    base, new, accuracy = (means[key] for key in ACCURACIES)
    both = number(harmonic_mean(base and base.value, new and new.value))
    areas = (averaged(means[key], 3) for key in AREAS)
    return (words(name), averaged(base), averaged(new), both, averaged(accuracy), *areas, words(seeds_of(found)))
