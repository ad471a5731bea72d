"""The common end of ``sar-experiment``'s training commands: list or execute runs, and print their tables."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.errors import one_line
from sar_train.cli.common import ProgressLine, resumable

if TYPE_CHECKING:
    from sar_train.experiment.job import Job
    from sar_train.experiment.pools import Pool


MOST_LINES = 50
"""Runs that are listed one by one."""


@dataclass(frozen=True)
class Machine:
    """The options of `protocols.sweep_options`: machine, caches and output of a sweep."""

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

    def placed(self, job: Job, out: Path) -> Job:
        """Return the run with absolute paths of folders, which are valid wherever a worker is started."""
        cache = Path(self.cache_dir or out.absolute().parent / ".features").absolute()
        root = str(Path(job.config.data_root).absolute()) if job.config.data_root else None
        return dataclasses.replace(job, config=dataclasses.replace(job.config, cache_dir=str(cache), data_root=root))

    def pool(self, jobs: Sequence[Job]) -> Pool:
        """Return the pool that executes the runs; on a GPU one at a time, unless the user says otherwise."""
        from sar_train.experiment import pools

        if self.ray:
            return pools.on_ray(self.ray, self.threads)
        on_gpu = any(job.config.device.startswith("cuda") for job in jobs)
        return pools.local(self.jobs or (1 if on_gpu else max(1, (os.cpu_count() or 1) // self.threads)), self.threads)


def carry_out(sweeps: Sequence[tuple[Sequence[Job], Path]], machine: Machine, cost: str = "") -> bool:
    """Look for the data, make the missing results, print the tables; return False if a run failed.

    Args:
        sweeps: runs, and the folder of their results.
        machine: where and how.
        cost: says what the runs take; shown before them, or below their list.
    """
    from sar_train.errors import ConfigError
    from sar_train.experiment.survey import look_for_data
    from sar_train.experiment.sweep import find_result

    if not all(jobs for jobs, _ in sweeps):
        raise ConfigError("no runs match these options")
    if machine.ray and machine.keep_prompts:
        raise ConfigError("--keep-prompts keeps them on this machine, so it cannot be combined with --ray")
    on_stderr = functools.partial(click.echo, err=True)
    planned = []
    for sweep, out in sweeps:
        jobs = [machine.placed(job, out) for job in sweep]
        planned.append((jobs, [job for job in jobs if find_result(job, out, any_code=machine.any_code) is None], out))
    look_for_data([job for _, todo, _ in planned for job in todo], on_stderr if machine.dry_run else None)
    if machine.dry_run:
        for jobs, todo, _ in planned:
            click.echo(listing(jobs, todo, as_json=machine.form == "json"))
    if cost:
        on_stderr(cost)
    whole = [machine.dry_run or _execute(*sweep, machine) for sweep in planned]
    return all(whole)


def _execute(jobs: Sequence[Job], missing: Sequence[Job], out: Path, machine: Machine) -> bool:
    from sar_train.experiment.survey import survey
    from sar_train.experiment.sweep import run_sweep

    show = ProgressLine(quiet=machine.quiet)
    pool = machine.pool(jobs)
    zero_shot = survey(missing, show, strict=not machine.allow_setup_errors)
    with resumable():
        done = run_sweep(jobs, out, pool, show, any_code=machine.any_code, keep_prompts=machine.keep_prompts)
    report(out, zero_shot, done.results, done.failed, machine.form, show)
    return not done.failed


def listing(jobs: Sequence[Job], missing: Sequence[Job], *, as_json: bool) -> str:
    """List all runs and whether each is done, or count those of each dataset in a text that would be long."""
    todo = set(map(id, missing))
    rows = [
        {"dataset": job.config.data, "run": job.stem, "done": id(job) not in todo, "targets": list(job.targets)}
        for job in jobs
    ]
    if as_json:
        return json.dumps(rows, ensure_ascii=False)
    if len(rows) > MOST_LINES:
        left, total = (Counter(job.config.data for job in of) for of in (missing, jobs))
        lines = [f"{name}  {left[name]} to do, {count - left[name]} done" for name, count in total.items()]
    else:
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
    """Print tables of all results in the folder, or JSON; failures go to stderr."""
    if form == "json":
        content = {"out": str(out), "zero_shot": zero_shot, "results": list(map(str, results)), "failed": failed}
        click.echo(json.dumps(content, ensure_ascii=False))
    elif results:
        from sar_train.report.results import read
        from sar_train.report.table import to_text
        from sar_train.report.tables import closing_tables

        click.echo("\n".join(map(to_text, closing_tables(read(out, tell=tell)))))
        tell(f"{len(results)} results in {out}; next: sar-experiment report {shlex.quote(str(out))}")
    for text in failed:
        click.echo(one_line(f"Failed: {text}"), err=True)
