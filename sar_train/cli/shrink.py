"""``sar-bundle shrink``: write a bundle with smaller image encoders."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path

import click

from sar_infer.cli.command import Command
from sar_infer.cli.options import BUNDLE_ARGUMENT, emit, format_option
from sar_infer.errors import one_line
from sar_train.cli.common import PATH, guarded, option


@click.command("shrink", cls=Command, groups={"Options": "photos out precision overwrite form quiet"})
@BUNDLE_ARGUMENT
@option(
    "--photos",
    required=True,
    type=PATH,
    help="Folder or quoted glob pattern of 40 typical photos or more, to calibrate and to compare.",
)
@option("--out", required=True, type=PATH, help="Folder of the new bundle.")
@option(
    "--precision",
    type=click.Choice(["fp16", "int8"]),
    multiple=True,
    required=True,
    help="Precision of the smaller image encoder. Repeatable.",
)
@option("--overwrite", is_flag=True, help="Replace a bundle in --out, which may be BUNDLE.")
@format_option
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@guarded
def main(
    bundle: str | None, photos: Path, out: Path, precision: tuple[str, ...], form: str, *, overwrite: bool, quiet: bool
) -> None:
    """Write a bundle with smaller image encoders next to the float32 one.

    Exit code 1 if one of them predicts differently from float32. Nothing is written then.
    """
    from sar_infer.bundle.bundle import default_bundle
    from sar_infer.bundle.card import variant_line
    from sar_infer.bundle.writing import check_target
    from sar_infer.images.inputs import expand

    check_target(out, overwrite=overwrite)
    from sar_train.export.shrink import shrink

    manifest = shrink(
        bundle or default_bundle(),
        out,
        [Path(path) for path in expand([str(photos)])],
        precision,
        command=shlex.join(["sar-bundle", *sys.argv[1:]]),
        overwrite=overwrite,
        tell=lambda line: None if quiet else click.echo(one_line(line), err=True),
    )
    made = {name: manifest.precisions[name] for name in precision}
    figures = {name: dataclasses.asdict(variant) for name, variant in made.items()}
    content = {"bundle": str(out), "digest": manifest.digest, "precisions": figures}
    lines = [*(f"{name:<11}{variant_line(variant)}" for name, variant in made.items()), f"bundle     {out}"]
    lines.append(f"next       sar-classify PHOTO --bundle {shlex.quote(str(out))} --precision {precision[0]}")
    emit(form, lambda: content, lines)
