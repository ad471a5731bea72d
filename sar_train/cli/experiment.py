"""``sar-experiment``: the experiments of the SAR paper, and their report."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.command import Command, tables
from sar_infer.cli.options import CONTEXT, format_option
from sar_infer.errors import one_line
from sar_train.cli.common import PATH, ProgressLine, guarded, option, resumable
from sar_train.cli.settings import setting_options
from sar_train.config.run import SETTINGS

if TYPE_CHECKING:
    from sar_train.experiment.job import Job

MOST = 1000
"""Most numbers in a range."""
MOST_LINES = 50
"""Runs that are listed one by one."""


@click.group(context_settings=CONTEXT | {"auto_envvar_prefix": "SAR_EXPERIMENT"})
@click.version_option(package_name="sar-clip")
def main() -> None:
    """Run the experiments of the SAR paper (arXiv 2502.11969) on your data, resumably, and write their report."""


def listed(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """Parse ``a,b c`` into a list, each once."""
    del ctx, parameter
    return list(dict.fromkeys((value or "").replace(",", " ").split()))


def numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    """Parse ``1,2,3`` or ``1-3`` into whole numbers, each once."""
    whole: list[int] = []
    for text in listed(ctx, parameter, value):
        first, _, last = text.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal() and len(text) < MOST):
            raise click.BadParameter(f"expected whole numbers such as 1,2,3 or 1-3, got {text!r:.80}")
        if not 0 <= int(last or first) - int(first) < MOST:
            raise click.BadParameter(f"expected a range of at most {MOST:,} numbers, got {text!r}")
        whole += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(whole))


PLANS = """\b
base-to-new            train on half of the classes, evaluate on both halves
few-shot               all classes from 1, 2, 4, 8 and 16 photos of each
cross-dataset          train on one dataset, evaluate on others (--targets)
domain-generalisation  train on one domain, evaluate on others (--targets)
PLAN.toml              a protocol with settings of your own, or a list of runs
"""


GROUPS = {"Runs": "datasets methods seeds shots targets", "Data": "data_root", "Running": "out jobs dry_run"}
_OPTIONS = ("data_root", "backbone")
_KEYS = tuple(name for name in SETTINGS if name not in (*_OPTIONS, "method", "sar", "seed", "shots"))
"""Settings of the runs that have no option here; the others are in the plan's lists."""


@main.command("run", cls=Command, groups=GROUPS, tables=True, epilog=PLANS)
@click.argument("plan", metavar="PROTOCOL|PLAN.toml")
@option("--datasets", callback=listed, help="Datasets such as caltech101,dtd, or folders. all: the field's eleven.")
@option(
    "--methods", callback=listed, help="Methods such as coop,dept:kgcoop.  [default: all that the backbone can train]"
)
@option("--seeds", callback=numbers, help="Seeds of draws and initial values.  [default: 1-3]")
@option("--shots", callback=numbers, help="Photos per class, 0 for all.  [default: 16; few-shot: 1,2,4,8,16]")
@option("--sar", type=click.Choice(["both", "on", "off"]), help="Train with SAR, without it, or both.  [default: both]")
@option("--targets", callback=listed, help="More datasets to evaluate on.")
@option("--out", type=PATH, help="Folder of the results.  [default: results/PLAN]")
@setting_options((*_OPTIONS, *_KEYS), _KEYS)
@option("--any-code", is_flag=True, help="Keep results of other versions of the code.")
@option("--keep-prompts", is_flag=True, help="Keep each run folder next to its result, for sar-export.")
@option("--jobs", type=click.IntRange(1), help="Runs at a time.  [default: one per core; 1 on a GPU]")
@option("--dry-run", is_flag=True, help="List the runs, time a few steps of each method, and stop.")
@format_option
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@guarded
def run(
    plan: str,
    out: Path | None,
    jobs: int | None,
    form: str,
    *,
    any_code: bool,
    keep_prompts: bool,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train and evaluate the runs of a protocol or a plan.

    Prints their tables. Runs that --out contains are not repeated. The same command continues after an interrupt.
    """
    from sar_train.experiment import pools
    from sar_train.experiment.sweep import check_inputs, find_result, run_sweep

    out = out or Path("results") / Path(plan).stem
    runs = _planned(plan, out, options)
    missing = [job for job in runs if find_result(job, out, any_code=any_code) is None]
    if older := 0 if any_code else sum(find_result(job, out, any_code=True) is not None for job in missing):
        why = f"another version of the code made their results in {out}"
        click.echo(one_line(f"{older} of {len(runs)} runs are repeated: {why}; --any-code keeps these"), err=True)
    show = ProgressLine(quiet=quiet)
    if dry_run:
        _dry_run(runs, missing, form, show)
        return
    check_inputs(missing)
    on_gpu = any(job.config.device.startswith("cuda") for job in runs)
    pool = pools.local(jobs or (1 if on_gpu else os.cpu_count() or 1))
    with resumable():
        done = run_sweep(runs, out, pool, show, any_code=any_code, keep_prompts=keep_prompts)
    if form == "json":
        results = [str(path) for path in done.results]
        click.echo(json.dumps({"out": str(out), "results": results, "failed": done.failed}, ensure_ascii=False))
    elif done.results:
        from sar_train.report.formats import to_markdown
        from sar_train.report.results import read
        from sar_train.report.tables import closing_tables

        click.echo("\n".join(map(to_markdown, closing_tables(read(out, tell=show)))))
        show(f"{len(done.results)} results in {out}; next: sar-experiment report {shlex.quote(str(out))}")
    for text in done.failed:
        click.echo(one_line(f"Failed: {text}"), err=True)
    sys.exit(1 if done.failed else 0)


def _planned(plan: str, out: Path, options: dict[str, Any]) -> list[Job]:
    """Return the runs of a plan with the settings of the command line, and with one cache of features."""
    from sar_train.experiment.plan import read_plan

    names = (*_OPTIONS, *_KEYS)
    overrides: dict[str, Any] = {name: value for name in names if (value := options.pop(name)) is not None}
    if "data_root" in overrides:
        overrides["data_root"] = str(Path(overrides["data_root"]).absolute())
    for source in ("--config", "--set"):
        for section, settings in tables(source).items():
            overrides[section] = overrides.get(section, {}) | settings
    runs = read_plan(plan, {name: value for name, value in options.items() if value}, overrides)
    cache = str(out.absolute().parent / ".features")  # valid wherever a worker is started
    configs = [dataclasses.replace(job.config, cache_dir=job.config.cache_dir or cache) for job in runs]
    return [dataclasses.replace(job, config=config) for job, config in zip(runs, configs, strict=True)]


def _dry_run(runs: Sequence[Job], missing: Sequence[Job], form: str, show: ProgressLine) -> None:
    """Print the runs, each done or to do (of many their numbers by dataset), and what those to do cost here."""
    from sar_train.errors import SarTrainError
    from sar_train.experiment.price import price
    from sar_train.experiment.sweep import check_inputs

    todo = {id(job) for job in missing}
    rows = [
        {"dataset": job.config.data, "run": job.stem, "done": id(job) not in todo, "targets": list(job.targets)}
        for job in runs
    ]
    if len(rows) > MOST_LINES:
        counts = Counter((row["dataset"], row["done"]) for row in rows)
        names = dict.fromkeys(row["dataset"] for row in rows)
        lines = [f"{name}  {counts[name, False]} to do, {counts[name, True]} done" for name in names]
    else:
        lines = [f"{'done' if row['done'] else 'to do':<7}{row['dataset']}  {row['run']}" for row in rows]
    if form != "json":
        click.echo("\n".join([*lines, f"{len(runs)} runs, {len(missing)} to do"]))
    check_inputs(missing)
    cost = None
    try:
        cost = price(missing, show)
    except (SarTrainError, RuntimeError) as error:  # torch's, such as too little memory
        click.echo(one_line(f"Warning: the runs cannot be timed here: {' '.join(str(error).split())}"), err=True)
    finally:
        show.close()
    if form == "json":
        click.echo(json.dumps({"runs": rows, "price": cost}, ensure_ascii=False))
    elif cost and missing:
        click.echo("\n".join(_priced(cost, missing[0].config.device)))


def _priced(cost: Mapping[str, Any], device: str) -> Iterator[str]:
    """Yield the lines of a price."""
    yield f"\n{'method':<24}{'runs':>6}{'hours':>9}   on {device}, one run at a time, from a few photos and steps"
    for name, of_method in cost["methods"].items():
        yield f"{name:<24}{of_method['runs']:>6,}{of_method['seconds'] / 3600:>9.2f}"
    yield f"{'features, once for all':<30}{cost['encoding'] / 3600:>9.2f}   {cost['views']:,} views of photos"
    yield f"{'together':<30}{cost['seconds'] / 3600:>9.2f}   and loading, class models and evaluation"
    yield f"disk: {cost['features'] / 1e6:,.0f} MB of features and {cost['results'] / 1e6:,.1f} MB of results"


@main.command("table", cls=Command, groups={"Options": "form only"})
@click.argument("folder", metavar="DIR", type=PATH)
@option(
    "--format", "form", envvar="SAR_EXPERIMENT_TABLE_FORMAT",
    type=click.Choice(["markdown", "csv", "latex", "json"]), default="markdown",
    help="Output format. latex needs the package booktabs.",
)  # fmt: skip
@option("--only", default="", metavar="TEXT", help="Only tables whose name or title contains this text.")
@guarded
def table(folder: Path, form: str, only: str) -> None:
    """Print the tables of the results in DIR."""
    from sar_train.errors import DataError
    from sar_train.report.formats import to_csv, to_json, to_latex, to_markdown
    from sar_train.report.results import read
    from sar_train.report.tables import all_tables

    every = all_tables(read(folder, tell=_warn))
    tables = [one for one in every if only.casefold() in f"{one.key} {one.title}".casefold()]
    if not tables:
        raise DataError(f"no table contains {only!r}; there are {', '.join(one.key for one in every)}")
    if form == "json":
        click.echo(to_json(tables), nl=False)
    elif form == "csv":
        click.echo("\n".join(f"# {one.title}\n{to_csv(one)}" for one in tables), nl=False)
    else:
        click.echo("\n".join(map(to_latex if form == "latex" else to_markdown, tables)), nl=False)


@main.command("report", cls=Command, groups={"Options": "out title show"})
@click.argument("folder", metavar="DIR", type=PATH)
@option("--out", type=PATH, help="Folder of the report. An earlier report is replaced.  [default: DIR/report]")
@option("--title", help="Title of the page.  [default: Results of DIR]")
@option("--open/--no-open", "show", envvar="SAR_EXPERIMENT_REPORT_OPEN", help="Open the page in the browser.")
@guarded
def report(folder: Path, out: Path | None, title: str | None, *, show: bool) -> None:
    """Write the results in DIR as one self-contained HTML page.

    Its tables (CSV, LaTeX, Markdown) and figures (PNG) are written next to it. DIR is searched for results to any
    depth. Other JSON files are skipped with a warning.
    """
    from sar_train.report.page import check_target, write
    from sar_train.report.results import read

    out = out or folder / "report"
    check_target(out)
    results = read(folder, tell=_warn, apart=out)
    name = folder.resolve().name
    command = shlex.join(["sar-experiment", "report", name])
    page = write(results, out, title=title or f"Results of {name}", command=command)
    click.echo(page)
    if show:
        click.launch(page.resolve().as_uri())


def _warn(line: str) -> None:
    click.echo(one_line(" ".join(line.split())), err=True)
