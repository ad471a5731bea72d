"""What the training commands of ``sar-experiment`` do once the runs are known."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_train.cli.progress import Progress

if TYPE_CHECKING:
    from sar_train.experiment.job import Job


@dataclass(frozen=True)
class Machine:
    """Where and how runs are worked off, from the options of `protocols.sweep_options`."""

    jobs: int | None
    threads: int
    ray: str | None
    cache_dir: str | None
    allow_setup_errors: bool
    any_code: bool
    keep_prompts: bool
    dry_run: bool
    form: str
    quiet: bool


def carry_out(jobs: Sequence[Job], out: Path, machine: Machine) -> None:
    """Survey the data, make the results that are missing, print the tables; exit 1 where a run failed."""
    from sar_train.errors import ConfigError
    from sar_train.experiment import pools
    from sar_train.experiment.survey import survey
    from sar_train.experiment.sweep import find_result, run_sweep

    if not jobs:
        raise ConfigError("no runs: nothing matches what was asked for")
    cache = machine.cache_dir or str(out / ".features")
    jobs = [dataclasses.replace(job, config=dataclasses.replace(job.config, cache_dir=cache)) for job in jobs]
    show = Progress(quiet=machine.quiet)
    missing = [job for job in jobs if find_result(job, out, any_code=machine.any_code) is None]
    if machine.dry_run:
        click.echo(listing(jobs, missing, as_json=machine.form == "json"))
        return
    pool = (
        pools.on_ray(machine.ray, machine.threads)
        if machine.ray
        else pools.local(machine.jobs or max(1, (os.cpu_count() or 1) // machine.threads), machine.threads)
    )
    zero_shot = survey(missing, show, strict=not machine.allow_setup_errors)
    done = run_sweep(jobs, out, pool, show, any_code=machine.any_code, keep_prompts=machine.keep_prompts)
    report(out, zero_shot, done.results, done.failed, machine.form, show)
    if done.failed:
        sys.exit(1)


def listing(jobs: Sequence[Job], missing: Sequence[Job], *, as_json: bool) -> str:
    """All runs and whether each is done."""
    todo = set(map(id, missing))
    rows = [
        {"dataset": job.config.data, "run": job.stem, "done": id(job) not in todo, "targets": list(job.targets)}
        for job in jobs
    ]
    if as_json:
        return json.dumps(rows, ensure_ascii=False)
    lines = [f"{'done' if row['done'] else 'to do':<7}{row['dataset']}  {row['run']}" for row in rows]
    return "\n".join([*lines, f"{len(jobs)} runs, {len(missing)} to do"])


def report(
    out: Path,
    zero_shot: Sequence[dict[str, Any]],
    results: Sequence[Path],
    failed: Sequence[str],
    form: str,
    tell: Callable[[str], None],
) -> None:
    """The tables, or JSON for machines; failures on stderr."""
    if form == "json":
        content = {"out": str(out), "zero_shot": zero_shot, "results": list(map(str, results)), "failed": failed}
        click.echo(json.dumps(content, ensure_ascii=False))
    elif results:
        tell(f"{len(results)} results in {out}; next: sar-experiment report {out}")
    for text in failed:
        click.echo(f"Failed: {text}", err=True)
