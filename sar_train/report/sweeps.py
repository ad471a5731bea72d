"""Tables of the user's own sweeps: a row for each run, with the settings in which the rows differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sar_train.report.base_new import MEASURES, in_one, without_unmeasured, zero_shot, zero_shot_varies
from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import mean, score, slug
from sar_train.report.table import Column, Row, Table, averaged, embolden, number, words
from sar_train.report.wording import seeds_of, spread_note

SECTION = "custom"
MOST_SETTINGS = 8


def tables(results: ResultSet) -> list[Table]:
    """Return a table for each folder of results, backbone and dataset."""
    groups: dict[tuple[Path, str, str], list[Result]] = {}
    for run in results.of(SECTION):
        groups.setdefault((run.folder, run.backbone, run.dataset), []).append(run)
    return [_table(*place, runs) for place, runs in groups.items()]


def _table(folder: Path, backbone: str, dataset: str, runs: Sequence[Result]) -> Table:
    rows: dict[str, list[Result]] = {}
    for run in runs:
        rows.setdefault(run.name, []).append(run)
    settings = shown_settings([found[0] for found in rows.values()])
    zero = zero_shot(runs)
    body: list[Row] = [
        (
            words("zero-shot"),
            *(words("") for _ in settings),
            averaged(zero.base),
            averaged(zero.new),
            number(zero.both),
            *(number(part and part.both) for part in in_one(zero)),
            *map(words, ("", "")),
        )
    ]
    for name, found in rows.items():
        scored = score(found)
        body.append(
            (
                words(name),
                *(words(shown(found[0].settings.get(key))) for key in settings),
                averaged(scored.base),
                averaged(scored.new),
                number(scored.both),
                *(number(part and part.both) for part in in_one(scored)),
                averaged(mean((run["relations"] or {}).get("after") for run in found), 2),
                words(seeds_of(scored.seeds)),
            )
        )
    at = len(settings) + 1
    columns = (
        Column("run", text=True),
        *(Column(key, "settings", text=True) for key in settings),
        *(Column(name, "accuracy") for name in MEASURES),
        Column("relations"),
        Column("seeds", text=True),
    )
    where = folder.as_posix() if folder != Path() else "sweep"
    key = slug(f"{SECTION}-{where}-{dataset}-{backbone}")
    varying = zero_shot_varies(runs)
    notes = (
        spread_note(runs),
        "Settings: those in which the rows differ. Relations: Spearman's correlation after training, of names that "
        "took no part. Bold: the best of each column.",
        *([varying] if varying else []),
    )
    title = f"{where}: {dataset}, {backbone}, accuracy in percent"
    marked = embolden(body, [(at + place,) for place in range(len(MEASURES))])
    return without_unmeasured(Table(key, SECTION, title, columns, marked, notes))


def shown_settings(rows: Sequence[Result]) -> list[str]:
    """Return the settings to show as columns: those in which rows differ, or none if there are too many.

    Settings of single methods are left out if rows of several methods are compared.
    """
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    found = [key for key in keys if len({repr(row.settings[key]) for row in rows if key in row.settings}) > 1]
    if "method" in found:
        own = {str(row.settings["method"]) for row in rows}
        found = [key for key in found if key.partition(".")[0] not in own]
    return found if len(found) <= MOST_SETTINGS else []


def shown(value: Any) -> str:
    """Return a setting's value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f'"{value}"' if value == "" else str(value)
