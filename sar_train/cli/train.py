"""``sar-train``: learn prompts from photos or from a feature file."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_train.cli.common import Progress, guarded, option, sections_of

if TYPE_CHECKING:
    from sar_train.config.run import RunConfig
    from sar_train.training.checkpoint import Run

EPILOG = """\b
Examples:
  sar-train demo --out runs/demo                        offline, about a minute
  sar-train photos/ --shots 16 --out runs/products      one folder of photos a class
  sar-train caltech101 --data-root DATA --no-sar --set coop.context_init="" --seed 2
  sar-train caltech101 --data-root DATA --backbone sar-mini-vit --method promptsrc
  sar-train photos/ --backbone ViT-B-16-quickgelu --pretrained openai --method dept --on kgcoop
  sar-train --list-methods
"""


@click.command(context_settings={"auto_envvar_prefix": "SAR"}, epilog=EPILOG)
@click.argument("photos", required=False)
@option("--data-root", type=click.Path(), help="Folder that holds datasets by name, in CoOp's layout.")
@option("--backbone", help="open_clip model name, sar-mini or sar-mini-vit.  [default: sar-mini]")
@option("--pretrained", help="Tag or file of the backbone's weights; sar-mini and sar-mini-vit bring their own.")
@option("--method", help="Prompt-tuning method; --list-methods says which there are.  [default: coop]")
@option("--on", help="The method that dept builds on: coop or kgcoop.  [default: coop]")
@option("--list-methods", is_flag=True, help="Show all methods, what they prompt and their papers, and exit.")
@option("--sar/--no-sar", default=None, help="Add Similarity Alignment Regularization.  [default: sar]")
@option(
    "--novel",
    help="Novel names for SAR: wordnet (relatives; wordnet:D or wordnet:A-B steps away), words (random nouns), "
    "dataset:NAME (its class names), llm, answer:FILE (a chat's answer), none, or a file.  [default: wordnet]",
)
@option("--novel-count", type=int, help="How many novel names.  [default: 400]")
@option(
    "--exclude-eval-names/--keep-eval-names",
    default=None,
    help="Leave the evaluated new names out of the novel ones.  [default: leave out]",
)
@option("--llm-url", help="For --novel llm: base URL of an OpenAI-compatible endpoint; its key goes into SAR_LLM_KEY.")
@option("--llm-model", help="For --novel llm: the model to ask.")
@option("--shots", type=int, help="Photos per class to learn from, 0 for all.  [default: 16]")
@option("--seed", type=int, help="Seed of the draw of photos and of everything random.  [default: 1]")
@option(
    "--views", type=int, help="Views cached per photo: the plain one, and random crops to learn from.  [default: 4]"
)
@option("--protocol", help="auto, base-to-new, all or pseudo (tuning on the base classes alone).  [default: auto]")
@option("--template", help="Hand-crafted template with {}.  [default: the dataset's, or 'a photo of a {}.']")
@option("--epochs", type=int, help="[default: the method's published number]")
@option(
    "--learning-rate",
    "--lr",
    type=float,
    help="[default: the method's published rate; with SGD on sar-mini and sar-mini-vit ten times that]",
)
@option("--batch-size", type=int, help="[default: the method's published size]")
@option("--device", help="cpu or cuda.  [default: cpu]")
@option("--precision", help="Of the towers while training: fp32, bf16 or fp16.  [default: fp32]")
@option(
    "--micro-batch",
    type=int,
    help="Photos through the towers at once, to save memory with image prompts.  [default: 0, the batch]",
)
@option(
    "--cache-dir", type=click.Path(), help="Keep image features here between runs.  [default: .features beside --out]"
)
@option(
    "--allow-missing",
    is_flag=True,
    default=None,
    help="Go on without the missing images of a split file.",
)
@option("--skip-unreadable", is_flag=True, default=None, help="Leave out unreadable images instead of stopping.")
@option("--sar-weight", type=float, help="Weight of SAR (lambda); short for --set sar.weight=…")
@option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Any setting of a method or of SAR.")
@option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with any of these settings.")
@option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/DATA-METHOD[-sar]-sSEED]")
@option("--overwrite", is_flag=True, help="Replace a finished run in --out.")
@option("--resume/--no-resume", default=True, show_default=True, help="Take up an unfinished run in --out.")
@option(
    "--save-features",
    type=click.Path(path_type=Path),
    help="Also write the features of all photos to this file, which sar-train reads in place of photos.",
)
@option("--format", "form", envvar="SAR_FORMAT", type=click.Choice(["text", "json"]), default="text", show_default=True)
@option("--quiet", "-q", is_flag=True, help="No progress.")
@click.version_option(package_name="sar-clip")
@guarded
def main(**given: Any) -> None:
    """Learn a prompt from PHOTOS and write it to a run folder.

    PHOTOS is a folder with one folder of photos per class, a CSV or JSONL list, a dataset by name (caltech101, …, with
    --data-root), a feature file (.safetensors), or the word demo for the one that ships with this package.

    A folder trains on all its classes and is tested on photos it did not learn from; a dataset with published splits
    learns from the first half of its classes (base) and is tested on both halves, each for itself (base, new).
    """
    form, quiet, overwrite = given.pop("form"), given.pop("quiet"), given.pop("overwrite")
    if given.pop("list_methods"):
        click.echo(method_list(as_json=form == "json"))
        return
    from sar_train.training import trainer

    resume, save_features = given.pop("resume"), given.pop("save_features")
    out: Path | None = given.pop("out")
    config = read_config(**given)
    out = out or Path("runs") / default_name(config)
    config = dataclasses.replace(config, cache_dir=config.cache_dir or str(out.parent / ".features"))
    show = Progress(quiet=quiet)
    try:
        run = trainer.run(config, out, tell=show, resume=resume, overwrite=overwrite)
        if save_features:
            trainer.write_features(config, save_features, tell=show, command=" ".join(sys.argv))
    finally:
        show.close()
    record = dict(run.record)
    click.echo(json.dumps(record | {"run": str(out)}, ensure_ascii=False) if form == "json" else table(record, out))
    warn_below_zero_shot(run)
    warn_not_calibrated(run)


def method_list(*, as_json: bool) -> str:
    """Return a list of all registered methods: name, prompted towers, whether image features are cached, paper."""
    from sar_train.methods.base import describe_methods

    found = describe_methods()
    if as_json:
        return json.dumps(found, ensure_ascii=False)
    lines = [f"{'method':<11}{'prompts':<13}{'features':<11}paper"]
    for entry in found:
        cached = "cached" if entry["features_cached"] else "each step"
        lines.append(f"{entry['name']:<11}{' + '.join(entry['towers']):<13}{cached:<11}{entry['paper']}")
    return "\n".join(lines)


def read_config(
    photos: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    sar_weight: float | None,
    on: str | None = None,
    **options: Any,
) -> RunConfig:
    """Build the settings from the file, then the options, then ``--set``; later ones win."""
    from sar_train.config.run import RunConfig, build, merge, read_toml
    from sar_train.errors import ConfigError

    if photos is None:
        raise ConfigError("expected PHOTOS: a folder, a list, a dataset's name, a feature file, or demo")
    sections: dict[str, dict[str, Any]] = {**sections_of(settings)}
    if sar_weight is not None:
        sections.setdefault("sar", {})["weight"] = sar_weight
    if on is not None:
        sections.setdefault("dept", {})["on"] = on
    chosen = {name: value for name, value in options.items() if value is not None}
    file = read_toml(config_file) if config_file else {}
    where = str(config_file) if config_file else "settings"
    return build(RunConfig, merge(file, {"data": photos}, chosen, sections), where)


def default_name(config: RunConfig) -> str:
    """Return the folder name of a run, such as ``caltech101-coop-sar-s1``."""
    on = config.sections.get(config.method, {}).get("on")
    name = f"{config.method}-{on}" if on else config.method
    parts = [Path(config.data).stem or "photos", name, *(["sar"] if config.sar else []), f"s{config.seed}"]
    return "-".join(parts)


def table(record: dict[str, Any], out: Path) -> str:
    """Return a run's last lines: zero-shot, linear probe and this run; base, new and harmonic mean."""
    config = record["config"]
    name = config["method"] + (" + sar" if config["sar"] else "")
    rows = {"zero-shot": record["zero_shot"], "linear probe": record["linear_probe"], name: record["metrics"]}
    has_new = record["metrics"]["new_accuracy"] is not None
    columns = {"base_accuracy": "base" if has_new else "accuracy"}
    if has_new:
        columns |= {"new_accuracy": "new", "harmonic_mean": "harmonic mean"}
    lines = ["", f"{'percent':<16}" + "".join(f"{title:>15}" for title in columns.values())]
    for label, values in rows.items():
        cells = [values.get(key) for key in columns]
        lines.append(f"{label:<16}" + "".join(f"{'-' if v is None else format(v, '.2f'):>15}" for v in cells))
    return "\n".join([*lines, "", f"run: {out}    next: sar-export {shlex.quote(str(out))} --out exports/NAME"])


def warn_below_zero_shot(run: Run) -> None:
    """Warn if a learned prompt is worse than the hand-crafted one."""
    metrics, zero_shot = run.record["metrics"], run.record["zero_shot"]
    for key, label in (("base_accuracy", "the trained classes"), ("new_accuracy", "new classes")):
        if metrics[key] is not None and metrics[key] < zero_shot[key]:
            click.echo(
                f"Warning: on {label} this prompt ({metrics[key]:.2f} %) is below zero-shot ({zero_shot[key]:.2f} %); "
                "more epochs, more photos, or the hand-crafted prompt (sar-export --handcrafted) may serve better.",
                err=True,
            )


def warn_not_calibrated(run: Run) -> None:
    """Warn if too few images were held out to tell how far scores can be trusted."""
    from sar_train.evaluation.confidence import not_calibrated

    if run.record["calibration"] is None:
        click.echo(f"Warning: {not_calibrated(run.record['dataset']['held_out'])} (docs/confidence.md).", err=True)
