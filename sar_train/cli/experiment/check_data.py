"""``sar-experiment check-data``: check a folder of images, and say how to fix it."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_train.cli.common import guarded, option

if TYPE_CHECKING:
    from sar_train.data.check import Checked, Report

WIDTH = 120
EPILOG = """\b
Examples:
  sar-experiment check-data DATA                      all known datasets
  sar-experiment check-data DATA --dataset imagenet   one of them
  sar-experiment check-data photos/ --all-images      decode every photo
"""


@click.command("check-data", epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option(
    "--dataset",
    "names",
    envvar="SAR_EXPERIMENT_CHECK_DATA_DATASET",
    multiple=True,
    metavar="NAME",
    help="Check this dataset alone; may be given again.",
)
@option("--all-images", is_flag=True, help="Decode every photo, not only a sample of 500 of each dataset.")
@option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@guarded
def check_data(folder: Path, names: tuple[str, ...], all_images: bool, form: str, quiet: bool) -> None:
    """Find in seconds what is missing or wrong in DIR, and say how to fix it.

    DIR is the folder that holds datasets in CoOp's layout, one dataset's folder, or photos of your own: a folder per
    class, a folder of domains, a CSV or JSONL list, or a folder saved by Hugging Face's datasets.

    Exit code 0: all of it can be used; 1: there are problems; 2: nothing was checked, and the message says why.
    """
    from sar_train.data.check import check

    report = check(folder, names, all_images=all_images, watch=watcher(quiet=quiet))
    click.echo(json.dumps(as_json(report), indent=2) if form == "json" else as_text(report))
    sys.exit(0 if report.usable else 1)


def watcher(*, quiet: bool) -> Callable[[str, int], Callable[[int], None]]:
    """Return a callback that shows a bar for each dataset on stderr, if that is a terminal."""
    from tqdm import tqdm

    def watch(name: str, total: int) -> Callable[[int], None]:
        bar = tqdm(total=total, desc=name, unit="photo", leave=False, disable=True if quiet else None)

        def advance(done: int) -> None:
            bar.update(done)
            if bar.n >= total:
                bar.close()

        return advance

    return watch


def as_text(report: Report) -> str:
    """Return a table of the datasets, the findings of each, and what is not there; odd names are escaped."""
    lines = [str(report.path), "", *_table(report.checked)]
    for checked in report.checked:
        if checked.findings:
            lines += ["", f"{checked.name}: {checked.folder}"]
            for finding in checked.findings:
                word = "note" if finding.severity == "ok" else finding.severity
                lines += _wrapped(f"  {word:<9}", finding.message)
                lines += _wrapped("  fix:     ", finding.mend) if finding.mend else []
    lines.append("")
    if report.absent:
        lines += _wrapped("not there: ", ", ".join(report.absent))
    if report.others:
        lines += _wrapped("not looked at (check each by itself): ", ", ".join(report.others))
    bad = [checked.name for checked in report.checked if checked.state == "error"]
    total = len(report.checked)
    lines.append(f"{len(bad)} of {total} with problems: {', '.join(bad)}" if bad else f"all {total} usable")
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as one object."""
    from sar_train.data.dataset import SPLITS
    from sar_train.data.layouts import LAYOUTS

    def one(checked: Checked) -> dict[str, Any]:
        layout = LAYOUTS.get(checked.name)
        return {
            "name": checked.name,
            "folder": str(checked.folder),
            "state": checked.state,
            "classes": checked.classes,
            "photos": dict(zip(SPLITS, checked.counts, strict=True)) if checked.counts else None,
            "published": {"classes": layout.classes, **dict(zip(SPLITS, layout.counts, strict=True))}
            if layout
            else None,
            "decoded": checked.decoded,
            "findings": [finding.to_json() for finding in checked.findings],
        }

    return {
        "place": str(report.path),
        "usable": report.usable,
        "datasets": [one(checked) for checked in report.checked],
        "not_there": list(report.absent),
        "not_looked_at": list(report.others),
    }


def _table(datasets: Sequence[Checked]) -> list[str]:
    width = max(7, *(len(checked.name) for checked in datasets)) + 2
    rows = [f"{'dataset':<{width}}{'classes':>8}{'train':>11}{'val':>9}{'test':>9}{'decoded':>9}  state"]
    for checked in datasets:
        classes = "-" if checked.classes is None else f"{checked.classes:,}"
        train, val, test = ("-" if n is None else f"{n:,}" for n in checked.counts or (None, None, None))
        numbers = f"{classes:>8}{train:>11}{val:>9}{test:>9}{checked.decoded:>9,}"
        rows.append(
            f"{checked.name:<{width}}{numbers}  {checked.state.upper() if checked.state == 'error' else checked.state}"
        )
    return rows


def _wrapped(first: str, text: str) -> list[str]:
    """Wrap a text into lines of at most ``WIDTH``, without breaking paths."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
