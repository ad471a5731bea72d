"""The commands of ``sar-experiment`` that train: the four protocols, and sweep files."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from sar_train.cli.common import guarded, option, sections_of
from sar_train.cli.experiment.sweeping import Machine, carry_out
from sar_train.cli.settings import setting_option, setting_options

if TYPE_CHECKING:
    from sar_train.experiment.job import Experiment

P = ParamSpec("P")
R = TypeVar("R")
SETTINGS = (
    "data_root", "backbone", "pretrained", "novel", "novel_count", "exclude_eval_names", "epochs", "precision",
    "allow_missing", "skip_unreadable", "llm_url", "llm_model",
)  # fmt: skip
"""Settings of every run that are options here, beside ``device``."""
MOST = 1000
"""Most numbers in a range."""
_LONGEST = 40
"""Most characters of a range."""


def listed(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Parse ``a,b c`` into a tuple, each once."""
    del ctx, parameter
    return tuple(dict.fromkeys((value or "").replace(",", " ").split()))


def numbers(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Parse ``1,2,3`` or ``1-3`` into whole numbers, each once."""
    whole: list[int] = []
    for text in listed(ctx, parameter, value):
        first, _, last = text.partition("-")
        sound = first.isdecimal() and (last or first).isdecimal() and len(text) <= _LONGEST
        if not sound or int(last or first) < int(first):
            raise click.BadParameter(f"expected whole numbers such as 1,2,3 or 1-3, got {text!r:.80}")
        if int(last or first) - int(first) >= MOST:
            raise click.BadParameter(f"expected a range of at most {MOST:,} numbers, got {text!r}")
        whole += range(int(first), int(last or first) + 1)
    if not whole:
        raise click.BadParameter("expected whole numbers such as 1,2,3, got none")
    return tuple(dict.fromkeys(whole))


def sweep_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add the options that every training command has."""
    options = [
        option("--out", type=click.Path(path_type=Path), help="Folder of the results.  [default: below results/]"),
        setting_options(*SETTINGS),
        setting_option("device", type=str, help="cpu or cuda.  [default: cpu]"),
        option(
            "--set",
            "settings",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Any setting of a method or of SAR, such as coop.n_ctx=4; repeatable.",
        ),
        option("--allow-setup-errors", is_flag=True, help="Train although zero-shot is below the known figure."),
        option("--any-code", is_flag=True, help="Count results of another version of the code as done."),
        option("--keep-prompts", is_flag=True, help="Keep each run's folder beside its result, for sar-export."),
        option("--jobs", type=click.IntRange(1), help="Runs at a time.  [default: cores / threads]"),
        option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of each run."),
        option(
            "--ray", metavar="ADDRESS", help="Run on the Ray cluster at this address, or auto, instead of this machine."
        ),
        option("--cache-dir", type=click.Path(), help="Keep image features here.  [default: .features beside --out]"),
        option(
            "--dry-run", is_flag=True, help="List the runs and which are done (more than 50: count them), then stop."
        ),
        option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True),
        option("--quiet", "-q", is_flag=True, help="Show no progress."),
    ]
    return functools.reduce(lambda wrapped, add: add(wrapped), reversed(options), command)


def grid_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add the options of the protocols: the methods, seeds and settings to combine."""
    options = [
        option(
            "--methods",
            callback=listed,
            default="all",
            show_default=True,
            help="Such as coop,dept:kgcoop; all: what the backbone can train.",
        ),
        option(
            "--seeds",
            callback=numbers,
            default="1,2,3",
            show_default=True,
            help="Seeds of draws and initial values.",
        ),
        option(
            "--sar",
            type=click.Choice(["both", "on", "off"]),
            default="both",
            show_default=True,
            help="With SAR, without, or both.",
        ),
        option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="TOML file: [common] settings, and [methods.NAME] for those of one method.",
        ),
    ]
    return functools.reduce(lambda wrapped, add: add(wrapped), reversed(options), command)


sixteen = option("--shots", callback=numbers, default="16", show_default=True, help="Photos per class, 0 for all.")
datasets = option(
    "--datasets",
    callback=listed,
    required=True,
    help="Such as caltech101,dtd, or folders; all for the field's eleven.",
)


@click.command("base-to-new")
@option("--datasets", callback=listed, help="Such as caltech101,dtd, or folders; all for the field's eleven.")
@option(
    "--preset",
    type=click.Choice(["paper"]),
    help="paper: all methods on the field's eleven datasets under CLIP ViT-B/16 on one GPU; needs --data-root alone, "
    "and says first what time and memory it takes. Other options override it.",
)
@sixteen
@grid_options
@sweep_options
@guarded
def base_to_new(preset: str | None, **options: Any) -> None:
    """Train on the first half of the classes (base) and evaluate on both halves, each by itself (base, new)."""
    if preset:
        from sar_train.experiment.plan import PRESETS

        context = click.get_current_context()
        by_user = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
        options |= {name: value for name, value in PRESETS[preset].items() if name not in by_user}
    if not options["datasets"]:
        raise click.MissingParameter(param_hint="'--datasets'", param_type="option")
    _protocol("base-to-new", options, cost=bool(preset))


@click.command("few-shot")
@datasets
@option("--shots", callback=numbers, default="1,2,4,8,16", show_default=True, help="Photos per class, 0 for all.")
@grid_options
@sweep_options
@guarded
def few_shot(**options: Any) -> None:
    """Train on all classes from few photos of each, and evaluate on all of them."""
    _protocol("few-shot", options)


@click.command("cross-dataset")
@option("--source", default="imagenet", show_default=True, help="Dataset to train on, all its classes.")
@option("--targets", callback=listed, help="Datasets to evaluate on.  [default: the others of the field's eleven]")
@sixteen
@grid_options
@sweep_options
@guarded
def cross_dataset(**options: Any) -> None:
    """Train on all classes of one dataset and evaluate the same prompt on others, with their own class names."""
    from sar_train.data.layouts import find
    from sar_train.experiment.plan import ELEVEN

    source = options.pop("source")
    options["datasets"] = (source,)
    options["targets"] = options["targets"] or tuple(name for name in ELEVEN if name != find(source))
    _protocol("cross-dataset", options)


@click.command("domain-generalisation")
@option("--source", default="imagenet", show_default=True, help="The domain to train on, such as pacs/photo.")
@option("--targets", callback=listed, help="Such as pacs/cartoon,pacs/sketch.  [default: V2, Sketch, A and R]")
@sixteen
@grid_options
@sweep_options
@guarded
def domain_generalisation(**options: Any) -> None:
    """Train on one domain and evaluate the same prompt on others of the same classes."""
    from sar_train.experiment.plan import VARIANTS

    options["datasets"] = (options.pop("source"),)
    options["targets"] = options["targets"] or VARIANTS
    _protocol("domain-generalisation", options)


@click.command("run")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@option("--only", default="", help="Only runs whose name contains this text.")
@sweep_options
@guarded
def run(files: tuple[Path, ...], only: str, **options: Any) -> None:
    """Execute the runs of sweep FILES: seeds, common settings and one table of settings for each run.

    The results of FILE.toml go to a folder FILE in --out (with one file and an --out, to that itself).
    """
    from sar_train.errors import ConfigError
    from sar_train.experiment.plan import read_spec

    overrides, out = _overrides(options), options.pop("out")
    jobs_of = {file: [job for job in read_spec(file, overrides) if only in job.name] for file in files}
    if not any(jobs_of.values()):
        raise ConfigError(f"no run's name contains {only!r}" if only else "no runs")
    if options["form"] == "json" and len(files) > 1:
        raise ConfigError("--format json takes one file at a time")
    folders = {file: out if out and len(files) == 1 else (out or Path("results")) / file.stem for file in files}
    whole = carry_out([(jobs, folders[file]) for file, jobs in jobs_of.items() if jobs], Machine(**options))
    sys.exit(0 if whole else 1)


def _protocol(experiment: Experiment, options: dict[str, Any], *, cost: bool = False) -> None:
    from sar_train.experiment import plan

    file = _read_config(options.pop("config_file"))
    overrides = _overrides(options)
    grid = plan.Grid(
        methods=options.pop("methods"),
        datasets=options.pop("datasets"),
        seeds=options.pop("seeds"),
        modes=options.pop("sar"),
        shots=options.pop("shots"),
        targets=options.pop("targets", ()),
        common=file.get("common", {}),
        per_method=file.get("methods", {}),
        overrides=overrides,
    )
    out = options.pop("out") or Path("results") / experiment
    jobs = plan.jobs(experiment, grid)
    estimate = ""
    if cost:
        from sar_train.data.layouts import find
        from sar_train.experiment.reckon import reckon

        estimate = (
            str(reckon(jobs))
            if all(find(job.config.data) for job in jobs)
            else "time and memory are estimated for datasets known by name alone"
        )
    sys.exit(0 if carry_out([(jobs, out)], Machine(**options), estimate) else 1)


def _overrides(options: dict[str, Any]) -> dict[str, Any]:
    """Take the settings of runs out of the options."""
    chosen = {name: value for name in (*SETTINGS, "device") if (value := options.pop(name)) is not None}
    return {**chosen, **sections_of(options.pop("settings"))}


def _read_config(path: Path | None) -> Mapping[str, Any]:
    from sar_train.config.run import read_toml
    from sar_train.errors import ConfigError

    file = read_toml(path) if path else {}
    if unknown := sorted(set(file) - {"common", "methods"}):
        raise ConfigError(f"{path}: unknown {', '.join(unknown)}; expected [common] and [methods.NAME]")
    tables = [*file.values(), *(values.values() if isinstance(values := file.get("methods"), dict) else ())]
    if not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: expected settings in tables, [common] and [methods.NAME]")
    return file
