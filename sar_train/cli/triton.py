"""``sar-bundle triton``: write a Triton model repository from a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sar_infer.cli.options import BUNDLE_ARGUMENT
from sar_train.cli.common import guarded, option


@click.command("triton")
@BUNDLE_ARGUMENT
@option("--out", required=True, type=click.Path(path_type=Path), help="The repository, a new folder.")
@option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Precision of the image encoder; the bundle must have it.",
)
@option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@guarded
def main(bundle: str | None, out: Path, precision: str, form: str) -> None:
    """Write a Triton model repository.

    It answers for the classes of a bundle. Its answers are compared with the bundle's before the folder gets its name.
    """
    from sar_infer.bundle.bundle import default_bundle
    from sar_train.export.triton import write_repository

    bundle_path = bundle or default_bundle()
    classes = len(write_repository(bundle_path, out, precision))
    if form == "json":
        content = {"repository": str(out), "bundle": str(bundle_path), "precision": precision, "classes": classes}
        click.echo(json.dumps(content, ensure_ascii=False))
    else:
        click.echo(f"repository {out}    {classes:,} classes, image encoder in {precision}")
        click.echo(f"next       {out / 'README.md'} says how to start Triton with it")
