"""Run a table of experiments: a TOML file in, one JSON file a run out, a Markdown table at the end.

    python experiments/run.py experiments/caltech101.toml [--jobs 2]

The TOML file has ``seeds``, ``[common]`` settings and one ``[runs.NAME]`` table a row, all in the vocabulary of
``sar-train --config``. Runs whose JSON lies in ``experiments/results/FILE/`` are not repeated, so that a killed sweep
goes on where it was; the table is computed from the JSON files alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

KEPT = (
    "config",
    "settings",
    "seed",
    "backbone",
    "metrics",
    "other_metrics",
    "zero_shot",
    "linear_probe",
    "relations",
    "novel",
    "timing",
    "peak_memory_mib",
    "versions",
)


def one_run(settings: dict[str, Any], result: Path) -> str:
    """Train once on one thread and write the result; returns a line for the log."""
    import torch

    from sar_train import trainer
    from sar_train.config import RunConfig, build

    torch.set_num_threads(1)
    config = build(RunConfig, settings, result.stem)
    with tempfile.TemporaryDirectory() as folder:
        record = trainer.run(config, Path(folder) / "run").record
    kept = {name: record[name] for name in KEPT} | {"last_epoch": record["history"][-1]}
    result.parent.mkdir(parents=True, exist_ok=True)
    temporary = result.with_suffix(".tmp")
    temporary.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(result)
    return f"{result.stem}: {record['metrics']} in {record['timing']['train_seconds']:.0f} s"


def table(results: Path, names: list[str], seeds: list[int]) -> str:
    """Base / new / harmonic mean: one column a seed, then the mean; zero-shot and linear probe first."""
    found = {
        (n, s): json.loads(p.read_text()) for n in names for s in seeds if (p := results / f"{n}-s{s}.json").is_file()
    }
    lines = ["| run | " + " | ".join(f"seed {s}" for s in seeds) + " | mean |", "|---|" + "---|" * (len(seeds) + 1)]
    first = {s: record for (_, s), record in reversed(found.items())}
    rows = {
        "zero-shot": {s: r["zero_shot"] for s, r in first.items()},
        "linear probe": {s: r["linear_probe"] for s, r in first.items()},
    }
    rows |= {name: {s: found[name, s]["metrics"] for s in seeds if (name, s) in found} for name in names}
    for name, by_seed in rows.items():
        cells = [cell(by_seed[s]) if s in by_seed else "" for s in seeds]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | **{cell(mean(list(by_seed.values())))}** |")
    return "\n".join(lines)


def pairs(results: Path, names: list[str], seeds: list[int]) -> str:
    """One row for each run NAME that has a partner NAME-sar: means over seeds, without SAR and with it.

    Relations are Spearman's correlation between hand-crafted and prompted similarities of names held out from training,
    at the start, after the run without SAR and after that with it.
    """
    lines = [
        "| method | base / new (H) | with SAR | relations: start, without, with | seconds an epoch | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        both = [load(results, run, seeds) for run in (name, f"{name}-sar")]
        if not all(both):
            continue
        scores = [cell(mean([record["metrics"] for record in records])) for records in both]
        relations = [statistics.fmean(r["relations"]["after"] for r in records) for records in both]
        relations.insert(0, statistics.fmean(r["relations"]["before"] for r in both[0]))
        seconds = [
            statistics.median(r["timing"]["train_seconds"] / r["config"]["schedule"]["epochs"] for r in records)
            for records in both
        ]
        memory = [max(r["peak_memory_mib"] for r in records) for records in both]
        cells = [
            *scores,
            ", ".join(f"{value:.2f}" for value in relations),
            ", ".join(f"{value:.2g}" for value in seconds),
            ", ".join(f"{value:.0f}" for value in memory),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def load(results: Path, name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """The results of a run that are there."""
    paths = [results / f"{name}-s{seed}.json" for seed in seeds]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def cell(scores: dict[str, float | None]) -> str:
    """``80.2 / 56.8 (66.5)``."""
    base, new, both = (scores.get(k) for k in ("base_accuracy", "new_accuracy", "harmonic_mean"))
    if base is None:
        return ""
    return f"{base:.1f}" if new is None or both is None else f"{base:.1f} / {new:.1f} ({both:.1f})"


def mean(records: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Mean base and new over seeds, and the harmonic mean of the means, as the field averages."""
    from sar_train.evaluate import harmonic_mean

    averages: dict[str, float | None] = {}
    for key in ("base_accuracy", "new_accuracy"):
        values = [v for r in records if (v := r.get(key)) is not None]
        averages[key] = statistics.fmean(values) if values else None
    averages["harmonic_mean"] = harmonic_mean(averages["base_accuracy"], averages["new_accuracy"])
    return averages


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--jobs", default=2, show_default=True, help="Runs at a time, one thread each.")
@click.option("--only", default="", help="Only runs whose name contains this text.")
@click.option("--table-only", is_flag=True, help="Print the table of what is there.")
def main(file: Path, jobs: int, only: str, table_only: bool) -> None:
    """Run what FILE lists and is not there yet, then print the table."""
    from sar_train.config import merge

    spec = tomllib.loads(file.read_text())
    results = Path(__file__).parent / "results" / file.stem
    todo = [
        (merge(spec.get("common", {}), settings, {"seed": seed}), results / f"{name}-s{seed}.json")
        for seed in spec["seeds"]
        for name, settings in spec["runs"].items()
        if only in name and not (results / f"{name}-s{seed}.json").exists()
    ]
    if not table_only:
        fresh = get_context("spawn")  # a process a run, so that its peak memory is its own
        with ProcessPoolExecutor(jobs, mp_context=fresh, max_tasks_per_child=1) as pool:
            for done in as_completed([pool.submit(one_run, *job) for job in todo]):
                click.echo(done.result(), err=True)
    click.echo(table(results, list(spec["runs"]), spec["seeds"]))
    if compared := pairs(results, list(spec["runs"]), spec["seeds"]):
        click.echo(f"\n{compared}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
