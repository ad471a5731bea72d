"""``sar-export``: write a bundle from a run, or from a hand-crafted template."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from sar_infer.cli.bundle import print_bundle
from sar_infer.cli.options import CONTEXT, read_classes
from sar_train.api import MOST_PHOTOS, check_export, export
from sar_train.cli.common import ProgressLine, guarded, option

EPILOG = """\b
Examples:
  sar-export runs/demo --out bundles/demo
  sar-export runs/demo --classes new.txt --photos photos/ --out bundles/new
  sar-export runs/cocoop --approximate mean-image --out bundles/cocoop
  sar-export runs/demo --out bundles/demo --push me/demo
  sar-export --handcrafted "a photo of a {}." --classes names.txt \\
             --backbone ViT-B-16-quickgelu --pretrained openai \\
             --out bundles/untuned
"""


@click.command(context_settings=CONTEXT | {"auto_envvar_prefix": "SAR_EXPORT"}, epilog=EPILOG)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@option("--out", type=click.Path(path_type=Path), help="The bundle's folder.")
@option(
    "--classes",
    type=click.Path(path_type=Path),
    help="Names of the bank, one per line, or 'name = phrase | phrase'.  [default: those of the run]",
)
@option(
    "--handcrafted",
    metavar="TEMPLATE",
    help="In place of RUN: an untuned backbone with this template, such as 'a photo of a {}.'",
)
@option(
    "--backbone",
    help="With --handcrafted (default sar-mini), or for a checkpoint that does not name its own; or alone, an image "
    "encoder of timm (timm/NAME), whose bundle knows classes by photos only.",
)
@option("--pretrained", help="Tag or file of the backbone's weights.  [default: those of the run]")
@option(
    "--photos",
    type=click.Path(path_type=Path),
    help=f"Compare with torch on (at most {MOST_PHOTOS}) photos of this folder.  [default: generated images]",
)
@option(
    "--approximate",
    type=click.Choice(["mean-image"]),
    help="For a method whose prompt depends on the photo (cocoop): export the prompt for the mean training photo.",
)
@option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@option(
    "--push",
    metavar="USER/NAME",
    help="Push the bundle to this repository of a Hugging Face hub too; a new repository is private.",
)
@option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.version_option(package_name="sar-clip")
@guarded
def main(run: Path | None, out: Path | None, push: str | None, form: str, *, quiet: bool, **options: Any) -> None:
    """Write a bundle, the folder that sar-classify reads, from RUN, a folder that sar-train has written.

    The bundle is compared with torch and opened before it gets its name; a bundle that fails a check is not written.
    What can be done with a bundle that exists is `sar-bundle`.
    """
    from sar_infer.bundle import hub
    from sar_train.errors import ConfigError

    check_export(run, {name: value for name, value in options.items() if name != "overwrite"})
    if out is None:
        raise ConfigError("expected --out DIR, the folder of the new bundle")
    if push is not None:
        hub.check_push(push)
    if options["classes"] is not None:
        options["classes"] = read_classes(options["classes"])
    command = shlex.join(["sar-export", *sys.argv[1:]])
    bundle = export(run, out=out, progress=ProgressLine(quiet=quiet), command=command, **options)
    pushed = None
    if push is not None:
        pushed = hub.push(bundle.path, bundle.manifest, push, progress=not quiet and sys.stderr.isatty())
    if form == "json":
        manifest = bundle.manifest
        content = {
            "bundle": str(out),
            "digest": manifest.digest,
            "encoder_digest": manifest.encoder_digest,
            "bytes": sum(entry.size for entry in manifest.files.values()),
            "quality": dataclasses.asdict(manifest.quality),
            **({} if pushed is None else {"pushed": pushed}),
        }
        click.echo(json.dumps(content, ensure_ascii=False))
        return
    print_bundle(out, form)
    if pushed:
        click.echo(f"{'pushed':<14}{pushed}")
    click.echo(f"{'next':<14}sar-classify PHOTO --bundle {shlex.quote(pushed or str(out))}")
