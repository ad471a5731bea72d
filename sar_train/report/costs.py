"""Tables of costs, of novel names, and of zero-shot accuracies beside the known ones."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import grouped, pairs
from sar_train.report.scores import shots as shots_of
from sar_train.report.table import Cell, Column, Row, Table, difference, number, words
from sar_train.report.wording import method_name

PLACES = ("experiment", "dataset", "shots", "backbone")


def tables(results: ResultSet) -> list[Table]:
    """Return costs, novel names and set-up checks, each if it has rows."""
    found = (costs(results), novel_names(results), set_up(results))
    return [table for table in found if table.rows]


def seconds(runs: Sequence[Result]) -> float | None:
    """Return the median over runs of the seconds an epoch took."""
    found = [
        run["timing"]["train_seconds"] / run.settings["epochs"]
        for run in runs
        if (run["timing"] or {}).get("train_seconds") and run.settings.get("epochs")
    ]
    return statistics.median(found) if found else None


def memory(runs: Sequence[Result]) -> float | None:
    """Return the largest peak of the process in MiB."""
    return max((run["peak_memory_mib"] for run in runs if run["peak_memory_mib"]), default=None)


def costs(results: ResultSet) -> Table:
    """Return seconds an epoch and peak memory, without SAR and with it."""
    body: list[Row] = []
    for protocol in dict.fromkeys(run.protocol for run in results.runs):
        for scene, rows in grouped(results.of(protocol)).items():
            for method, sides in (_by_sar(rows) if protocol == "custom" else pairs(rows)).items():
                time, mib = [seconds(side) for side in sides], [memory(side) for side in sides]
                ratio = time[1] / time[0] if time[0] and time[1] else None
                body.append(
                    (
                        words(method_name(method)),
                        *map(words, (protocol, scene.dataset, shots_of(scene.shots), scene.backbone)),
                        *map(_significant, time),
                        number(ratio, 2),
                        *(number(value, 0) for value in mib),
                        difference(mib[1], mib[0], 0, good=0),
                    )
                )
    columns = (
        *(Column(name, text=True) for name in ("method", *PLACES)),
        *(Column(name, "seconds an epoch") for name in ("without", "with SAR", "ratio")),
        *(Column(name, "peak MiB") for name in ("without", "with SAR", "difference")),
    )
    common, columns, body = _without_constant(columns, body)
    notes = (
        "Seconds: median over seeds of training time by epochs. Peak: the largest of the process, data and libraries "
        "included.",
        "Runs that share a machine slow one another: benchmarks/methods.py measures what SAR adds to a step.",
    )
    return Table("costs", "costs", f"What a run costs{common}", columns, tuple(body), notes)


def _by_sar(rows: Mapping[str, list[Result]]) -> dict[str, tuple[list[Result], list[Result]]]:
    """Split runs of a sweep by their settings, as their names do not say whether SAR took part."""
    sides = {
        name: [[r for r in runs if bool(r["config"].get("sar")) is k] for k in (False, True)]
        for name, runs in rows.items()
    }
    return {name: (without, with_sar) for name, (without, with_sar) in sides.items()}


def _without_constant(columns: tuple[Column, ...], body: list[Row]) -> tuple[str, tuple[Column, ...], list[Row]]:
    """Move columns with the same text in every row into the title."""
    same = [k for k, c in enumerate(columns) if c.name in PLACES and len({row[k].text for row in body}) == 1]
    keep = [k for k in range(len(columns)) if k not in same]
    common = ": " + ", ".join(body[0][k].text for k in same) if same else ""
    return common, tuple(columns[k] for k in keep), [tuple(row[k] for k in keep) for row in body]


def _significant(value: float | None) -> Cell:
    """Return a cell with two significant digits."""
    return Cell() if value is None else Cell(f"{value:.2g}" if value < 100 else f"{value:.0f}", value)


def novel_names(results: ResultSet) -> Table:
    """Return the source and number of SAR's novel names, and how many evaluated new names the source contained."""
    found: dict[tuple[str, str, str], list[Result]] = {}
    for run in results.runs:
        if run["novel"]:
            source = Path(str(run["novel"]["source"])).name
            found.setdefault((run.dataset, method_name(run.name), source), []).append(run)
    body = [
        (*map(words, place), words(_range(runs, "count")), words(_range(runs, "overlap")), number(len(runs), 0))
        for place, runs in sorted(found.items())
    ]
    columns = (
        *(Column(name, text=True) for name in ("dataset", "method", "source")),
        *map(Column, ("names", "overlap", "runs")),
    )
    notes = (
        "Overlap: evaluated new names that the source gave; they are left out unless a run was told to keep them.",
    )
    return Table("novel-names", "novel", "Novel names that SAR was given", columns, tuple(body), notes)


def _range(runs: Sequence[Result], key: str) -> str:
    values = sorted({int(run["novel"].get(key) or 0) for run in runs})
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def set_up(results: ResultSet) -> Table:
    """Return zero-shot accuracy beside the known one; too low means a mistake in template, names or pre-processing."""
    found: dict[tuple[str, str, str, bool], Result] = {}
    for run in results.runs:
        if check := run["zero_shot_check"]:
            found.setdefault((run.dataset, run.backbone, str(check.get("source")), bool(check.get("ok"))), run)
    body = []
    for (dataset, backbone, source, ok), run in found.items():
        check, measured = run["zero_shot_check"], run["zero_shot"]
        cells = [
            number(part.get(key), 2)
            for part in (check.get("expected") or {}, measured)
            for key in ("base_accuracy", "new_accuracy")
        ]
        verdict = Cell("as expected" if ok else "too low", bold=not ok, tone="" if ok else "down")
        body.append((words(dataset), words(backbone), *cells, verdict, words(source)))
    columns = (
        Column("dataset", text=True),
        Column("backbone", text=True),
        *(Column(name, group) for group in ("known", "here") for name in ("base", "new")),
        Column("verdict", text=True),
        Column("source of the known figures", text=True),
    )
    return Table("set-up", "set-up", "Zero-shot accuracy beside the known one, in percent", columns, tuple(body))
