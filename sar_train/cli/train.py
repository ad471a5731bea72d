"""``sar-train``: learn prompts from photos or from a feature file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.cli.command import Command, tables
from sar_infer.cli.options import CONTEXT, format_option
from sar_train.cli.common import PATH, ProgressLine, guarded, option, resumable
from sar_train.cli.settings import setting_options

if TYPE_CHECKING:
    from sar_train.api import TrainedRun

_WIDTH = 27
"""Characters of the first column of the closing table."""
_MUCH = 5.0
"""Points by which the class model may be below another way to answer without a warning."""
EPILOG = """\b
Examples:
  sar-train demo --out runs/demo            offline, about a minute
  sar-train photos/ --out runs/products     one folder of photos per class
  sar-train photos/ --plan                  what that would do, and how long
  sar-train caltech101 --data-root DATA --no-sar --set coop.context_init=""
  sar-train dtd --data-root DATA --backbone sar-mini-vit --method promptsrc
  sar-train photos/ --method dept --on kgcoop \\
            --backbone ViT-B-16-quickgelu --pretrained openai
  sar-train --list-methods
"""
NOT_MEASURED = (
    "no accuracy: no photo is left to test on; give each class two photos or more, or test photos of their own "
    "(PHOTOS/train/CLASS and PHOTOS/test/CLASS)"
)
NO_VALIDATION = (
    "no accuracy: --protocol pseudo tests on validation photos, and there is none; use fewer --shots, or give some "
    "(PHOTOS/val/CLASS next to train and test)"
)
GROUPS = {"Run": "out overwrite plan", "Data": "data_root shots", "Method": "method sar backbone epochs"}


@click.command(
    cls=Command,
    groups=GROUPS,
    tables=True,
    context_settings=CONTEXT | {"auto_envvar_prefix": "SAR_TRAIN"},
    epilog=EPILOG,
)
@click.argument("photos", required=False)
@option("--out", type=PATH, help="Run folder.  [default: runs/DATA-METHOD[-sar]-sSEED]")
@option("--overwrite", is_flag=True, help="Replace a finished run in --out.")
@option("--plan", is_flag=True, help="Show what a run would do and how long it takes. Train nothing.")
@setting_options()
@option("--on", help="Method that dept extends: coop or kgcoop.  [default: coop]")
@option("--list-methods", is_flag=True, allow_from_autoenv=False, help="Show all methods with their papers, and exit.")
@option("--resume/--no-resume", default=True, help="Resume an unfinished run in --out.")
@option(
    "--save-features",
    type=PATH,
    help="Also write the features of all photos to this file, which can replace PHOTOS later.",
)
@option("--strict", is_flag=True, help="Train nothing if a photo looks like another class.")
@format_option
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.version_option(package_name="sar-clip")
@guarded
def main(**options: Any) -> None:
    """Learn a prompt from PHOTOS and write it to a run folder.

    PHOTOS is a folder with one folder of photos for each class, a CSV or JSONL list, a dataset by name (caltech101, …,
    with --data-root), a feature file (.safetensors), or demo for the photos in this package.

    A folder trains on all its classes, and is tested on photos that were not used in training. A dataset with
    published splits trains on the first half of its classes (base), and is tested on each half (base, new).
    """
    form, quiet = options.pop("form"), options.pop("quiet")
    if options.pop("list_methods"):
        click.echo(method_list(as_json=form == "json"))
        return
    from sar_train.api import train
    from sar_train.errors import ConfigError

    if options["photos"] is None:
        raise ConfigError("expected PHOTOS: a folder, a list, a dataset's name, a feature file, or demo")
    sections: dict[str, Any] = {"settings": tables("--set"), "config": tables("--config")}
    if options.pop("plan"):
        click.echo(plan(options, sections, form=form, quiet=quiet))
        return
    with contextlib.closing(ProgressLine(quiet=quiet)) as show, resumable():
        run = train(progress=show, **sections, **options)
    record = dict(run.record)
    if form == "json":
        files: dict[str, Any] = {"run": str(run.path), "page": None if run.page is None else str(run.page)}
        files["label_issues"] = [dataclasses.asdict(issue) for issue in run.label_issues]
        click.echo(json.dumps(record | files, ensure_ascii=False))
    else:
        click.echo(table(record, run.path, run.page))
    for warning in warnings_of(run):
        click.echo(f"Warning: {warning}", err=True)


def plan(options: dict[str, Any], sections: dict[str, Any], *, form: str, quiet: bool) -> str:
    """Return what a run would do, as text or JSON.

    Args:
        options: of the command.
        sections: settings of methods and SAR, from the command line and from a file.
        form: ``text`` or ``json``.
        quiet: show no progress.
    """
    from sar_train.api import default_name, label_page, preview, run_config
    from sar_train.cli.preview import preview_text
    from sar_train.training.labels import report
    from sar_train.training.trainer import check_run_folder

    for name in ("overwrite", "resume", "save_features"):
        options.pop(name)
    out, strict = options.pop("out"), options.pop("strict")
    chosen = run_config(**sections, **options)
    out = Path("runs") / default_name(chosen) if out is None else out
    check_run_folder(out, chosen)
    with contextlib.closing(ProgressLine(quiet=quiet)) as show:
        result = preview(progress=show, **sections, **options)
    check = result.label_check
    if check is not None:
        report(check, label_page(out), chosen.data, show, strict=strict)
    if form == "json":
        content = dataclasses.asdict(dataclasses.replace(result, label_check=None)) | {"run": str(out)}
        del content["label_check"]
        issues = [] if check is None else check.issues
        content["label_issues"] = [dataclasses.asdict(issue) for issue in issues]
        return json.dumps(content, ensure_ascii=False)
    return preview_text(result, str(out))


def method_list(*, as_json: bool) -> str:
    """Return a list of all registered methods: name, prompted towers, whether image features are cached, paper."""
    from sar_train.methods.base import describe_methods

    methods = describe_methods()
    if as_json:
        return json.dumps(methods, ensure_ascii=False)
    lines = [f"{'method':<11}{'prompts':<13}{'features':<11}paper"]
    for entry in methods:
        cached = "cached" if entry["features_cached"] else "each step"
        lines.append(f"{entry['name']:<11}{' + '.join(entry['towers']):<13}{cached:<11}{entry['paper']}")
    return "\n".join(lines)


def table(record: dict[str, Any], out: Path, page: Path | None = None) -> str:
    """Return a run's last lines: zero-shot, linear probe, this run; base, new, harmonic mean; then jointly."""
    from sar_train.training.record import CLASS_MODEL, CLASS_MODEL_SWITCHED, SWITCHED, WAYS

    config = record["config"]
    name = " + ".join([config["method"], *([name for name in record["settings"] if name != config["method"]])])
    rows = {"zero-shot": record["zero_shot"], "linear probe": record["linear_probe"]}
    class_model = record["statistics"]
    trained = class_model is None or class_model["trained"]
    others = record["other_metrics"]
    if trained:
        rows[name] = record["metrics"]
    if class_model:
        with_model = _with_class_model(name, class_model)
        rows[with_model] = others[CLASS_MODEL]
    rows |= {f"- {WAYS[way]}": others[way] for way in (SWITCHED, CLASS_MODEL_SWITCHED) if way in others}
    has_new = record["metrics"]["new_accuracy"] is not None
    columns = {"base_accuracy": "base" if has_new else "accuracy"}
    if has_new:
        columns |= {"new_accuracy": "new", "harmonic_mean": "harmonic mean"}
    lines = ["", f"{'percent':<{_WIDTH}}" + "".join(f"{title:>15}" for title in columns.values())]
    lines += _lines(rows, columns)
    tested = [sum((record["per_class_counts"][group] or {}).values()) for group in ("base", "new")[: 1 + has_new]]
    lines.append(f"{'test photos':<{_WIDTH}}" + "".join(f"{count:>15,}" for count in tested))
    if all(record["metrics"][key] is None for key in columns):
        why = NO_VALIDATION if record["dataset"]["judged_on"] == "val" else NOT_MEASURED
        lines = ["", *textwrap.wrap(why, 100)]
    if joint := record["open"]:
        ways = {"zero-shot": joint["zero_shot"]} | ({name: joint["metrics"]} if trained else {})
        for way, measures in joint["other_metrics"].items():
            ways[with_model if way == CLASS_MODEL else f"- {WAYS[way]}"] = measures
        lines += ["", "joint over base and new"]
        lines += _lines({label: measures["images"] for label, measures in ways.items()}, columns)
    if class_model:
        from sar_infer.bundle.card import expectation
        from sar_infer.evaluation.compare import encoder_hint

        lines += ["", *textwrap.wrap(expectation(class_model), 100)]
        lines += ["", *textwrap.wrap(compared(class_model["comparison"]), 100)]
        accuracy = None if class_model["defaults"] else class_model["expected"][-1]["trained"] / 100
        if accuracy is not None and (hint := encoder_hint(config["backbone"], accuracy)):
            lines += ["", hint]
    lines += ["", *([] if page is None else [f"what is confused with what: {page}"])]
    return "\n".join([*lines, f"run: {out}    next: sar-export {shlex.quote(str(out))} --out bundles/NAME"])


def compared(comparison: Mapping[str, Any]) -> str:
    """Return the line on the learned and the hand-crafted prompt under the class model, which was chosen, and why."""
    chosen = "hand-crafted" if comparison["chosen"] == "handcrafted" else "learned"
    if comparison["learned"] is None:
        return f"the class model takes the {chosen} prompt: {comparison['reason']}"
    return (
        f"on held-out classes the learned prompt scores {comparison['learned']:.1f} % and the hand-crafted one "
        f"{comparison['handcrafted']:.1f} %: the class model takes the {chosen} one, since {comparison['reason']}"
    )


def _with_class_model(name: str, class_model: Mapping[str, Any]) -> str:
    return f"{'hand-crafted' if class_model['prompt'] == 'handcrafted' else name} + class model"


def _lines(rows: Mapping[str, Mapping[str, Any]], columns: Iterable[str]) -> list[str]:
    lines = []
    for label, values in rows.items():
        first, *others = ("-" if (value := values.get(key)) is None else f"{value:.1f}" for key in columns)
        lines.append(f"{label}{first:>{max(6, _WIDTH + 15 - len(label))}}" + "".join(f"{cell:>15}" for cell in others))
    return lines


def warnings_of(run: TrainedRun) -> Iterator[str]:
    """Yield what to mind of a run: a prompt below zero-shot, a class model far below another way."""
    metrics, zero_shot, class_model = (run.record[key] for key in ("metrics", "zero_shot", "statistics"))
    for key, label in (("base_accuracy", "the trained classes"), ("new_accuracy", "new classes")):
        if metrics[key] is not None and round(metrics[key], 1) < round(zero_shot[key], 1):
            yield (
                f"on {label} this prompt ({metrics[key]:.1f} %) is below zero-shot ({zero_shot[key]:.1f} %); "
                "more epochs, more photos, or the hand-crafted prompt (sar-export --handcrafted) may serve better."
            )
    answer = run.scores.base_accuracy
    if class_model is not None and answer is not None:
        percent, way, command = max(
            (metrics["base_accuracy"], "the prompt without it", "sar-train --no-statistics"),
            (zero_shot["base_accuracy"], "zero-shot", "sar-export --handcrafted"),
        )
        if percent - answer > _MUCH:
            yield (
                f"the class model gets {answer:.1f} % of these test photos right, {way} {percent:.1f} %; "
                f"to answer with that, use {command}"
            )
