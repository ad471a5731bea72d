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
from sar_infer.cli.command import Command
from sar_infer.cli.options import CONTEXT, format_option, read_classes
from sar_train.api import MOST_PHOTOS, check_export, export
from sar_train.cli.common import PATH, ProgressLine, guarded, option

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


GROUPS = {
    "Bundle": "out classes photos push",
    "Untuned backbone": "handcrafted backbone pretrained tokenizer",
    "Output": "form",
}


@click.command(
    cls=Command, groups=GROUPS, context_settings=CONTEXT | {"auto_envvar_prefix": "SAR_EXPORT"}, epilog=EPILOG
)
@click.argument("run", required=False, type=PATH)
@option("--out", type=PATH, help="The bundle's folder.")
@option(
    "--classes",
    type=PATH,
    help="Text file of class names, one per line.  [default: the classes of the run; with --handcrafted none]",
)
@option(
    "--handcrafted",
    metavar="TEMPLATE",
    help="Export an untuned backbone with this template, such as 'a photo of a {}.', instead of RUN.",
)
@option(
    "--backbone",
    help="open_clip model, with --handcrafted or for a checkpoint that names none; or, without RUN, an image encoder "
    "of timm (timm/NAME).  [default: sar-mini]",
)
@option("--pretrained", help="Tag or file of the backbone's weights.  [default: the weights of the run]")
@option(
    "--tokenizer",
    type=PATH,
    help="tokenizer.json of the backbone, next to its tokenizer_config.json.  [default: download it]",
)
@option(
    "--photos",
    type=PATH,
    help=f"Compare with torch on photos of this folder, {MOST_PHOTOS} at most.  [default: generated images]",
)
@option(
    "--approximate",
    type=click.Choice(["mean-image"]),
    help="Export the prompt of the mean training photo, for cocoop, whose prompt depends on the photo.",
)
@option(
    "--text",
    type=click.Choice(["prompt", "switched"]),
    default="prompt",
    help="Embed names by the learned prompt; switched: only trained classes, and all others by the hand-crafted one.",
)
@option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@option(
    "--push",
    metavar="USER/NAME",
    help="Also push the bundle to this Hugging Face repository. A new repository is private.",
)
@format_option
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.version_option(package_name="sar-clip")
@guarded
def main(run: Path | None, out: Path | None, push: str | None, form: str, *, quiet: bool, **options: Any) -> None:
    """Write a bundle, which sar-classify reads, from RUN, the run folder of sar-train.

    The bundle is compared with PyTorch first. It is not written if a check fails. `sar-bundle` works on a bundle that
    exists.
    """
    from sar_infer.bundle import hub
    from sar_train.errors import ConfigError

    check_export(run, {name: value for name, value in options.items() if name != "overwrite"})
    if out is None:
        raise ConfigError("no folder for the bundle; add --out FOLDER")
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
    names = "" if bundle.bank.names else " --classes NAMES"
    click.echo(f"{'next':<14}sar-classify PHOTO{names} --bundle {shlex.quote(pushed or str(out))}")
