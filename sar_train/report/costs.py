"""Tables of costs, of novel names, and of zero-shot accuracies beside the published ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from sar_train.report.results import Result, ResultSet
from sar_train.report.scores import Scene, Sides, grouped
from sar_train.report.table import Cell, Column, Difference, Table, Value, make_table
from sar_train.report.wording import method_name, shots_text


def tables(results: ResultSet) -> tuple[Table, ...]:
    """Return costs, novel names and set-up checks."""
    return _costs(results), _novel_names(results), _set_up(results)


def _costs(results: ResultSet) -> Table:
    """Return seconds an epoch and peak memory, without SAR and with it."""
    body: list[Sequence[Value]] = []
    for protocol in dict.fromkeys(run.protocol for run in results.runs):
        for scene in grouped(results.of(protocol)):
            for method, sides in (_by_sar(scene) if protocol == "custom" else scene.methods).items():
                times, peaks = [_seconds(side) for side in sides], [_peak(side) for side in sides]
                ratio = times[1] / times[0] if times[0] and times[1] else None
                about = (method_name(method), protocol, scene.dataset, shots_text(scene.shots), scene.backbone)
                moved = Difference(peaks[1], peaks[0], neutral=True)
                body.append((*about, *map(_two_digits, times), ratio, *peaks, moved))
    columns = (
        *(Column(name, text=True) for name in ("method", "experiment", "dataset", "shots", "backbone")),
        *(Column(name, "seconds an epoch", digits=2) for name in ("without", "with SAR", "ratio")),
        *(Column(name, "peak MiB", digits=0) for name in ("without", "with SAR", "difference")),
    )
    constant = [j for j in range(1, 5) if len({row[j] for row in body}) == 1]  # these move into the title
    keep = [j for j in range(len(columns)) if j not in constant]
    title = "What a run costs" + (": " + ", ".join(str(body[0][j]) for j in constant) if constant else "")
    notes = (
        "Seconds: median over seeds of training time by epochs. Peak: the largest of the process, data and libraries "
        "included.",
        "Runs that share a machine slow one another: benchmarks/methods.py measures what SAR adds to a step.",
    )
    values = [[row[j] for j in keep] for row in body]
    return make_table("costs", "costs", title, [columns[j] for j in keep], values, notes)


def _by_sar(scene: Scene) -> dict[str, Sides]:
    """Split runs of a sweep by their settings, as their names do not say whether SAR took part."""
    return {
        name: ([r for r in runs if not r["config"].get("sar")], [r for r in runs if r["config"].get("sar")])
        for name, runs in scene.rows.items()
    }


def _seconds(runs: Sequence[Result]) -> float | None:
    """Return the median over runs of the seconds an epoch took."""
    seconds = [
        run["timing"]["train_seconds"] / run.settings["epochs"]
        for run in runs
        if (run["timing"] or {}).get("train_seconds") and run.settings.get("epochs")
    ]
    return statistics.median(seconds) if seconds else None


def _peak(runs: Sequence[Result]) -> float | None:
    """Return the largest peak of the process in MiB."""
    return max((run["peak_memory_mib"] for run in runs if run["peak_memory_mib"]), default=None)


def _two_digits(value: float | None) -> Cell:
    """Return a cell with two significant digits."""
    return Cell() if value is None else Cell(f"{value:.2g}" if value < 100 else f"{value:.0f}", value)


def _novel_names(results: ResultSet) -> Table:
    """Return the source and number of SAR's novel names, and how many evaluated new names the source contained."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for run in results.runs:
        if run["novel"]:
            source = Path(str(run["novel"]["source"])).name
            groups.setdefault((run.dataset, method_name(run.name), source), []).append(run)
    body = [
        (*names, _range(runs, "count"), _range(runs, "overlap"), len(runs)) for names, runs in sorted(groups.items())
    ]
    columns = (
        *(Column(name, text=True) for name in ("dataset", "method", "source")),
        *(Column(name, digits=0) for name in ("names", "overlap", "runs")),
    )
    note = "Overlap: evaluated new names that the source gave; they are left out unless a run was told to keep them."
    return make_table("novel-names", "novel", "Novel names that SAR was given", columns, body, (note,))


def _range(runs: Sequence[Result], key: str) -> str:
    values = sorted({int(run["novel"].get(key) or 0) for run in runs})
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _set_up(results: ResultSet) -> Table:
    """Return zero-shot accuracy beside the known one; too low means a mistake in template, names or pre-processing."""
    checks: dict[tuple[str, str, str, bool], Result] = {}
    for run in results.runs:
        if check := run["zero_shot_check"]:
            checks.setdefault((run.dataset, run.backbone, str(check.get("source")), bool(check.get("ok"))), run)
    body = []
    for (dataset, backbone, source, ok), run in checks.items():
        expected, measured = run["zero_shot_check"].get("expected") or {}, run["zero_shot"]
        values = [one.get(key) for one in (expected, measured) for key in ("base_accuracy", "new_accuracy")]
        verdict = Cell("as expected" if ok else "too low", bold=not ok, tone="" if ok else "down")
        body.append((dataset, backbone, *values, verdict, source))
    columns = (
        Column("dataset", text=True),
        Column("backbone", text=True),
        *(Column(name, group, digits=2) for group in ("known", "here") for name in ("base", "new")),
        Column("verdict", text=True),
        Column("source of the known figures", text=True),
    )
    return make_table("set-up", "set-up", "Zero-shot accuracy beside the known one, in percent", columns, body)
